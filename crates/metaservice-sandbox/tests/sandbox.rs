//! The sandbox as a library, with a real machine: what its handle does, and that it cleans up.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use metaservice::Destination;
use metaservice_sandbox::control;
use metaservice_sandbox::job::Job;
use metaservice_sandbox::life::{End, Signal};
use metaservice_sandbox::spec::JobSpec;
use metaservice_sandbox::{Event, Launcher, Sandbox, StartError};
use metaservice_testing::processes::command_line;
use metaservice_testing::wait;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::AsyncReadExt;

fn unique(what: &str) -> String {
    format!("{what}-{}", std::process::id())
}

/// The process that runs the machine of this name.
fn machine(name: &str) -> Option<Pid> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut numbers = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    numbers.find_map(|number| {
        let pid = Pid::from_raw(number)?;
        let line = command_line(pid)?;
        (line.contains("qemu-system") && line.contains(name)).then_some(pid)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_runs_commands_and_moves_files() {
    let sandbox = Sandbox::builder().command(["sleep", "infinity"]).start().await.unwrap();
    let command = sandbox.exec(["sh", "-c", "echo $GREETING; pwd; exit 3"]);
    let output = command.env("GREETING", "hello").workdir("/tmp").output().await.unwrap();
    assert_eq!((output.status.code(), output.stdout.as_ref()), (Some(3), &b"hello\n/tmp\n"[..]));

    let length = sandbox.write(Destination::file("/tmp/a"), &b"content"[..]).await.unwrap();
    assert_eq!(length, 7);
    let mut content = Vec::new();
    sandbox.read("/tmp/a").open().await.unwrap().read_to_end(&mut content).await.unwrap();
    assert_eq!(content, b"content");

    let report = sandbox.stop().await;
    assert!(matches!(report.outcome.end, End::Killed(_)), "{report:?}");
    assert_eq!(report.status(), 128 + 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_reports_what_happens_and_how_it_ended() {
    let name = unique("report");
    let (reader, log) = tokio::io::duplex(1 << 16);
    let builder = Sandbox::builder().name(&name).snapshot(false);
    let mut sandbox =
        builder.command(["sh", "-c", "echo out; exit 7"]).log(log).launch().await.unwrap();
    let mut events = sandbox.events();
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(match event {
            Event::Starting => "starting",
            Event::MachineStarted(_) => "machine",
            Event::Started { .. } => "started",
            Event::Ended(_) => "ended",
            _ => continue,
        });
    }
    assert_eq!(seen, ["starting", "machine", "started", "ended"]);
    let report = sandbox.wait().await;
    assert_eq!((report.outcome.end, report.status()), (End::Result, 7));
    // The service keeps the sink as long as the handle lives.
    drop(sandbox);
    let mut text = String::new();
    let mut reader = reader;
    reader.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "out\n");
    assert!(!control::names().await.unwrap().contains(&name));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_sandbox_ends_and_removes_everything() {
    let name = unique("drop");
    let builder = Sandbox::builder().name(&name).snapshot(false);
    let sandbox = builder.command(["sleep", "infinity"]).start().await.unwrap();
    assert!(control::names().await.unwrap().contains(&name));
    let process = pidfd_open(machine(&name).expect("a machine"), PidfdFlags::empty()).unwrap();
    drop(sandbox);
    let ended = tokio::task::spawn_blocking(move || {
        let limit = Duration::from_secs(30).try_into().unwrap();
        poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).unwrap()
    });
    assert_eq!(ended.await.unwrap(), 1, "QEMU still runs");
    let directory = metaservice_sandbox::history::place().join(&name);
    tokio::task::spawn_blocking(move || wait::until("no directory", || !directory.exists()))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_everything_at_once() {
    let builder = Sandbox::builder().snapshot(false);
    let mut sandbox = builder
        // The command ignores the first request.
        .command(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
        .start()
        .await
        .unwrap();
    sandbox.signal(Signal(2));
    sandbox.signal(Signal(2));
    let report = sandbox.wait().await;
    assert_eq!((report.outcome.end, report.status()), (End::Abandoned(Signal(2)), 130));
}

#[tokio::test]
async fn a_wrong_description_is_refused_before_anything_starts() {
    let zero = Sandbox::builder().command(["true"]).timeout(Duration::ZERO);
    assert!(matches!(zero.launch().await, Err(StartError::Job(_))));
    let cpus = Sandbox::builder().command(["true"]).cpus(0);
    assert!(matches!(cpus.launch().await, Err(StartError::Job(_))));
    let image = Sandbox::builder().command(["true"]).image("/no/such/image");
    assert!(matches!(image.launch().await, Err(StartError::Plan(_))));
    let empty = JobSpec::new(Vec::<String>::new());
    let empty = metaservice_sandbox::Builder::from_spec(empty);
    assert!(matches!(empty.launch().await, Err(StartError::Job(_))));
}

#[tokio::test]
async fn a_machine_that_another_program_starts_is_awaited_and_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let listener = tokio::net::UnixListener::bind(directory.path().join("socket")).unwrap();
    let job = Job::try_from(JobSpec::new(["true"])).unwrap();
    let mut sandbox = Launcher::new(job).open().await.unwrap().serve(listener);
    let mut events = sandbox.events();
    assert!(matches!(events.next().await, Some(Event::Waiting)));
    sandbox.signal(Signal(2));
    let report = sandbox.wait().await;
    assert_eq!((report.outcome.end, report.status()), (End::Cancelled(Signal(2)), 130));
    assert!(events.next().await.is_none());
}
