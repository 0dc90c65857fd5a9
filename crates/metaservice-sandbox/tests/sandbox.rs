//! The sandbox as a library, with a real machine: what its handle does, and that it cleans up.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use metaservice::Destination;
use metaservice_sandbox::control;
use metaservice_sandbox::life::{End, Signal};
use metaservice_sandbox::spec::JobSpec;
use metaservice_sandbox::{Event, Sandbox, StartError};
use tokio::io::AsyncReadExt;

fn unique(what: &str) -> String {
    format!("{what}-{}", std::process::id())
}

/// Whether a process of this user runs QEMU for the machine of this name.
fn machine_runs(name: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines =
        processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| {
        let line = String::from_utf8_lossy(&line);
        line.contains("qemu-system") && line.contains(name)
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
    assert!(control::names().await.unwrap().contains(&name) && machine_runs(&name));
    drop(sandbox);
    let gone = async {
        while machine_runs(&name) || control::names().await.unwrap().contains(&name) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("it is still there");
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
