//! A guest, a host and the network between them, in one process on simulated time.
//!
//! Everything that happens is drawn from a seed: how much the command logs and when, what the host
//! asks for, which connection is slow, cut, stalled or left half-open with its last bytes still on
//! their way, when the agent is killed or a second one appears, when the service is replaced.
//! `METASERVICE_SEED` runs one seed again, `METASERVICE_SEEDS` so many of them.
//!
//! After each run: exactly one result, both outputs are what was written, no action was answered
//! twice or lost for good, shells lost no byte, and nothing waits for ever.
//!
//! The agent here is a model: it speaks the same protocol with the same types. The real one
//! meets the same troubles, on real time and with real processes, in the tests of pairs.
#![allow(clippy::unwrap_used, missing_docs)]

mod agent;
mod network;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metaservice::{DiskWork, ExitStatus, LogFrom, LogOutput, MetaService, SessionMode, StoredLog};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use self::agent::Kept;

/// Longer than any of the protocol's timings, one after the other.
const LONG: Duration = Duration::from_secs(2 * 60 * 60);

/// Longer than any connection that was troubled lives.
const SETTLED: Duration = Duration::from_secs(10 * 60);

/// What is shared by everything in one world.
struct World {
    random: Mutex<StdRng>,
    /// The service, while it is up.
    service: Mutex<Option<MetaService>>,
    /// Its connections.
    serving: Mutex<Vec<JoinHandle<()>>>,
    /// How many connections may still be troubled: then the weather clears.
    troubles: Mutex<u32>,
    /// The job's outputs as they will be, and how much of each the command writes in a second.
    logs: [Vec<u8>; 2],
    rate: u64,
    begun: Instant,
    success: bool,
    /// What was answered to whom with 200: never twice for one id.
    answered: Mutex<BTreeMap<String, u32>>,
    /// All that has happened, and when.
    trace: Mutex<DefaultHasher>,
}

impl World {
    fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.random.lock().unwrap())
    }

    fn service(&self) -> Option<MetaService> {
        self.service.lock().unwrap().clone()
    }

    fn note(&self, what: &str, bytes: usize) {
        (self.begun.elapsed(), what, bytes).hash(&mut *self.trace.lock().unwrap());
    }

    /// How much of each output the command has written by now.
    fn written(&self) -> [usize; 2] {
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap();
        let written = usize::try_from(elapsed * self.rate / 1000).unwrap();
        [0, 1].map(|output| written.min(self.logs[output].len()))
    }
}

/// What the host wants, and when.
#[derive(Clone, Copy)]
struct Wish {
    after: u64,
    kind: u8,
    name: u32,
}

/// When the service is replaced, and whether its connections get an end before.
#[derive(Clone, Copy)]
struct Restart {
    after: u64,
    abrupt: bool,
}

/// A course of events.
struct Course {
    agents: Vec<u64>,
    wishes: Vec<Wish>,
    restarts: Vec<Restart>,
    lingers: bool,
}

fn plan(seed: u64, directory: &Path) -> (World, Course) {
    let mut random = StdRng::seed_from_u64(seed);
    let logs = [40_000, 10_000].map(|most| {
        let mut log = vec![0; random.random_range(0..most)];
        random.fill_bytes(&mut log);
        log
    });
    let success = random.random_bool(0.5);
    let troubles = random.random_range(0..30);
    let rate = random.random_range(50..20_000);
    let mut some = |most: u32, each: &mut dyn FnMut(&mut StdRng)| {
        for _ in 0..random.random_range(0..most) {
            each(&mut random);
        }
    };
    let (mut agents, mut wishes, mut restarts) = (vec![0], Vec::new(), Vec::new());
    some(3, &mut |random| agents.push(random.random_range(0..90)));
    some(12, &mut |random| {
        let (after, kind, name) =
            (random.random_range(0..120), random.random_range(0..3), random.random());
        wishes.push(Wish { after, kind, name });
    });
    some(3, &mut |random| {
        restarts
            .push(Restart { after: random.random_range(1..80), abrupt: random.random_bool(0.5) });
    });
    let course = Course { agents, wishes, restarts, lingers: random.random_bool(0.3) };
    let world = World {
        service: Mutex::new(Some(start(directory).unwrap())),
        serving: Mutex::default(),
        troubles: Mutex::new(troubles),
        logs,
        rate,
        begun: Instant::now(),
        success,
        answered: Mutex::default(),
        trace: Mutex::default(),
        random: Mutex::new(random),
    };
    (world, course)
}

fn start(directory: &Path) -> Result<MetaService, metaservice::StartError> {
    MetaService::builder(["job"])
        .session(SessionMode::Required)
        .state(directory.join("state"))
        .disk_work(DiskWork::InPlace)
        .separate(true)
        .start()
}

/// Asks for something. An error is an end too; a wrong answer is none.
async fn ask(world: &World, wish: Wish) -> bool {
    let Some(service) = world.service() else { return false };
    let path = format!("/{:x}", wish.name);
    match wish.kind {
        0 => {
            let Ok(files) = service.list(&path).files().await else { return false };
            assert_eq!(files, [format!("{path}/a"), format!("{path}/b")]);
        }
        1 => {
            let Ok(artifact) = service.read(&path).spool().await else { return false };
            let mut all = Vec::new();
            std::io::Read::read_to_end(&mut artifact.into_std().await, &mut all).unwrap();
            assert!(all == agent::content(&path));
        }
        _ => return through_a_shell(&service, wish.name).await,
    }
    true
}

/// Sends bytes through a shell that sends them back. What comes is what was sent, up to a cut;
/// where the shell says it has ended, it is all of it.
async fn through_a_shell(service: &MetaService, name: u32) -> bool {
    let sent: Vec<u8> = (0..name % 200_000).map(|n| (n % 253) as u8).collect();
    let Ok(mut shell) = service.exec(["cat"]).spawn().await else { return false };
    let (mut stdin, mut stdout) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
    let mut back = Vec::new();
    let (_, read) = tokio::join!(
        async {
            let _ = stdin.write_all(&sent).await;
            let _ = stdin.shutdown().await;
        },
        stdout.read_to_end(&mut back),
    );
    let ended = shell.wait().await;
    assert!(sent.starts_with(&back), "{} bytes are not the {} sent", back.len(), sent.len());
    if ended.as_ref().is_ok_and(ExitStatus::success) {
        read.unwrap();
        assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    }
    ended.is_ok()
}

/// Runs agents one after the other, and some at once. Never ends.
async fn agents(world: &Arc<World>, kept: &Arc<Mutex<Kept>>, course: &Course) {
    let mut running = JoinSet::new();
    for lifetime in &course.agents {
        if !course.lingers {
            running.shutdown().await;
        }
        running.spawn(agent::run(Arc::clone(world), Arc::clone(kept)));
        tokio::select! {
            biased;
            ended = running.join_next() => ended.unwrap().unwrap(),
            () = sleep(Duration::from_secs(*lifetime)) => {}
        }
    }
    running.join_next().await.unwrap().unwrap();
}

/// Ends the service, with its connections or under them, and starts another on its state.
async fn replace(world: &World, directory: &Path, restart: Restart) {
    sleep(Duration::from_secs(restart.after)).await;
    let old = world.service.lock().unwrap().take().unwrap();
    let serving = std::mem::take(&mut *world.serving.lock().unwrap());
    if restart.abrupt {
        // Nothing more is promised than was: what the log has beyond that is cut off.
        serving.iter().for_each(JoinHandle::abort);
    } else {
        old.shutdown().await.unwrap();
    }
    drop(old);
    // The old service locks the directory until its last connection has ended.
    let next = loop {
        match start(directory) {
            Ok(service) => break service,
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    };
    *world.service.lock().unwrap() = Some(next);
    world.note("replaced", 0);
}

/// Runs one seed; all that happened in it.
async fn simulate(seed: u64, directory: &Path) -> u64 {
    let (world, course) = plan(seed, directory);
    let (world, kept) = (Arc::new(world), Arc::new(Mutex::new(Kept::default())));
    let asking = async {
        let mut asking = JoinSet::new();
        for wish in course.wishes.clone() {
            let world = Arc::clone(&world);
            asking.spawn(async move {
                sleep(Duration::from_secs(wish.after)).await;
                ask(&world, wish).await
            });
        }
        while let Some(asked) = asking.join_next().await {
            world.note("asked", usize::from(asked.unwrap()));
        }
    };
    let replaced = async {
        for restart in &course.restarts {
            replace(&world, directory, *restart).await;
        }
    };
    let resolved = async {
        tokio::join!(asking, replaced);
        while !kept.lock().unwrap().reported {
            sleep(Duration::from_secs(1)).await;
        }
        *world.troubles.lock().unwrap() = 0;
        assert_eq!(agent::contradict(&world, &kept).await, 409, "there are two results");
        // In calm weather nothing is lost.
        sleep(SETTLED).await;
        for kind in 0..3 {
            assert!(ask(&world, Wish { after: 0, kind, name: 199_999 }).await, "{kind} is lost");
        }
    };
    tokio::select! {
        biased;
        () = agents(&world, &kept, &course) => unreachable!("agents do not end"),
        ended = timeout(LONG, resolved) => ended.expect("something never ends"),
    }
    let service = world.service().unwrap();
    let result = timeout(LONG, service.result()).await.expect("there is a result");
    assert_eq!(result.success, world.success);
    service.shutdown().await.unwrap();
    let trace = world.trace.lock().unwrap().finish();
    for (written, log) in stored(&directory.join("state")).await.iter().zip(&world.logs) {
        assert!(written == log, "{} of {} bytes", written.len(), log.len());
    }
    let answered = world.answered.lock().unwrap();
    assert!(answered.values().all(|times| *times == 1), "{answered:?}");
    trace
}

/// Both outputs, as the state directory has them.
async fn stored(state: &Path) -> [Vec<u8>; 2] {
    let open = |name: &str| std::fs::File::open(state.join(name)).unwrap();
    let log = StoredLog::open(open("log"), open("log.index")).unwrap();
    let mut reader = log.reader(LogFrom::Start).await.unwrap();
    let mut outputs = [Vec::new(), Vec::new()];
    while let Some(segment) = reader.next_segment().await.unwrap() {
        outputs[usize::from(segment.output == LogOutput::Stderr)].extend(segment.bytes);
    }
    outputs
}

/// Runs one seed in a world of its own.
fn run(seed: u64) -> u64 {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    let run = || runtime.block_on(simulate(seed, directory.path()));
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    ran.unwrap_or_else(|_| panic!("METASERVICE_SEED={seed} fails"))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn whatever_the_weather_the_job_is_whole() {
    let seeds = match number("METASERVICE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("METASERVICE_SEEDS").unwrap_or(2000),
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for first in 0..threads {
            let seeds = seeds.clone().skip(first).step_by(threads);
            scope.spawn(move || {
                seeds.for_each(|seed| {
                    run(seed);
                });
            });
        }
    });
}

#[test]
fn a_seed_goes_the_same_way_each_time() {
    let traces: Vec<u64> = (0..50).map(run).collect();
    for (seed, trace) in traces.iter().enumerate() {
        assert_eq!(run(seed as u64), *trace, "seed {seed}");
    }
    let distinct: std::collections::BTreeSet<_> = traces.iter().collect();
    assert_eq!(distinct.len(), traces.len());
}
