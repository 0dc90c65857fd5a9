//! A service that is killed continues its job after a restart.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use metaservice::{LogFrom, LogOutput, StoredLog};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use metaservice_testing::pair::spawn_agent;
use metaservice_testing::port;
use metaservice_testing::processes::wait_within;
use metaservice_testing::wait::{TIMEOUT, for_file};

use crate::AGENT;

/// A service with a state directory, which can be killed any number of times.
struct Service<'a> {
    directory: &'a Path,
    port: u16,
    script: String,
}

impl Service<'_> {
    fn start(&self) -> Child {
        let path = |name: &str| self.directory.join(name).display().to_string();
        let said =
            std::fs::File::options().append(true).create(true).open(path("messages")).unwrap();
        Command::new(env!("CARGO_BIN_EXE_metaservice"))
            .args(["serve", "--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--state", &path("kept"), "--secret", "SECRET"])
            .args(["--artifact", &format!("{}:{}", path("made"), path("fetched"))])
            .args(["sh", "-c", &self.script])
            .env("SECRET", "only once")
            .env("XDG_STATE_HOME", self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap()
    }
}

/// The service is killed with SIGKILL at random times. The log, the result and the artifact are
/// still complete. `METASERVICE_SEED` repeats one run. `METASERVICE_KILLS` sets the number of
/// kills.
#[test]
fn a_killed_service_goes_on_with_its_job() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("METASERVICE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("METASERVICE_KILLS").unwrap_or(40),
    };
    for seed in seeds {
        let ran = std::panic::catch_unwind(|| killed(seed));
        assert!(ran.is_ok(), "METASERVICE_SEED={seed} fails");
    }
}

fn killed(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let port = port::reserve();
    let (parts, lines) = (random.random_range(1..20), random.random_range(1..30_000));
    let status = random.random_range(0..3);
    let script = format!(
        "for n in $(seq 1 {parts}); do seq 1 {lines}; seq 1 {lines} >&2; sleep 0.01; done; \
         head -c 3000000 /dev/urandom > {made}; echo \"$SECRET\"; exit {status}",
        made = directory.join("made").display(),
    );
    let service = Service { directory, port, script };
    let mut guest = spawn_agent(AGENT.as_str(), ([127, 0, 0, 1], port).into(), directory, &[]);
    let mut kills = random.random_range(1..8);
    let ended = loop {
        let mut running = service.start();
        let time = Duration::from_millis(random.random_range(1..250));
        let ended = wait_within(&mut running, if kills > 0 { time } else { TIMEOUT });
        if let Some(ended) = ended {
            break ended;
        }
        let messages = || std::fs::read_to_string(directory.join("messages")).unwrap_or_default();
        assert!(kills > 0, "the service does not end: {}", messages());
        kills -= 1;
        running.kill().unwrap();
        running.wait().unwrap();
    };
    let said = std::fs::read_to_string(directory.join("messages")).unwrap();
    assert_eq!(ended.code(), Some(status), "{said}");
    let part: String = (1..=lines).map(|n| format!("{n}\n")).collect();
    let errors = part.repeat(parts);
    let expected = errors.clone() + "only once\n";
    for (log, expected) in stored(&directory.join("kept")).iter().zip([expected, errors]) {
        let same = log.iter().zip(expected.bytes()).take_while(|(a, b)| **a == *b).count();
        let whole = log == expected.as_bytes();
        assert!(whole, "{} of {} bytes, {same} right", log.len(), expected.len());
    }
    let read = |name: &str| std::fs::read(directory.join(name)).unwrap();
    assert!(read("made") == read("fetched"));
    // A further start finds that the job has ended.
    let again = service.start().wait().unwrap();
    assert_eq!(again.code(), Some(status));
    let pid = rustix::process::Pid::from_child(&guest);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    guest.wait().unwrap();
}

/// Both outputs, as the state directory has them.
fn stored(state: &Path) -> [Vec<u8>; 2] {
    let open = |name: &str| std::fs::File::open(state.join(name)).unwrap();
    let log = StoredLog::open(open("log"), open("log.index")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut reader, mut outputs) =
            (log.reader(LogFrom::Start).await.unwrap(), [vec![], vec![]]);
        while let Some(segment) = reader.next_segment().await.unwrap() {
            outputs[usize::from(segment.output == LogOutput::Stderr)].extend(segment.bytes);
        }
        outputs
    })
}

#[test]
fn a_stopped_service_leaves_its_job_alone_and_others_cannot_take_it() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let port = port::reserve();
    let go = directory.join("go").display().to_string();
    let made = directory.join("made").display().to_string();
    let service = Service { directory, port, script: script_of(&go, &made) };
    let said = || std::fs::read_to_string(directory.join("messages")).unwrap_or_default();
    let mut guest = spawn_agent(AGENT.as_str(), ([127, 0, 0, 1], port).into(), directory, &[]);
    let mut running = service.start();
    for_file(&directory.join("made"));
    let second = service.start().wait().unwrap();
    assert_eq!(second.code(), Some(125), "{}", said());
    assert!(said().contains("another service is using it"), "{}", said());
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(143));
    assert!(said().contains("SIGTERM: the job can be continued from the state in"), "{}", said());

    let other = Service { script: "echo other".to_owned(), ..service };
    assert_eq!(other.start().wait().unwrap().code(), Some(125));
    assert!(said().contains("it belongs to another job"), "{}", said());

    let service = Service { script: script_of(&go, &made), ..other };
    let mut running = service.start();
    std::fs::write(&go, "").unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(0), "{}", said());
    assert_eq!(std::fs::read(directory.join("kept/log")).unwrap(), b"begun\n");

    // The state directory belongs to this job: another job is refused.
    let state = || std::fs::read(directory.join("kept/ledger.json")).unwrap();
    let kept = state();
    let other = Service { script: "echo other".to_owned(), ..service };
    let before = said().len();
    assert_eq!(other.start().wait().unwrap().code(), Some(125), "{}", said());
    assert!(said()[before..].contains("it belongs to another job"), "{}", said());
    let service = Service { script: script_of(&go, &made), ..other };
    assert_eq!(service.start().wait().unwrap().code(), Some(0), "{}", said());
    assert!(said().contains("the job has ended before, with this status"), "{}", said());
    assert!(state() == kept);
    let pid = rustix::process::Pid::from_child(&guest);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    guest.wait().unwrap();
}

fn script_of(go: &str, made: &str) -> String {
    format!("echo begun; touch {made}; until test -e {go}; do sleep 0.01; done")
}
