//! Machines that wait for a job, with real machines.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use metaservice_sandbox::machine::{WarmError, WarmMachine, snapshot};
use metaservice_sandbox::{Builder, Sandbox};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;

/// The size of machines that other tests have no snapshot of.
const MEMORY: u64 = 320 << 20;

fn builder() -> Builder {
    Sandbox::builder().memory(MEMORY)
}

async fn warm() -> WarmMachine {
    let like = builder().command(["true"]).prepare().await.unwrap();
    snapshot::make(like.plan(), true).await.unwrap();
    like.warm_up().await.unwrap()
}

/// Runs a job in this machine, and returns its status and its log.
async fn run(warm: WarmMachine, builder: Builder) -> (u8, String) {
    let (sink, mut log) = tokio::io::duplex(1 << 20);
    let mut sandbox = builder.log(sink).prepare().await.unwrap().warm(warm).launch().await.unwrap();
    let status = sandbox.wait().await.status();
    drop(sandbox);
    let mut text = String::new();
    log.read_to_string(&mut text).await.unwrap();
    (status, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_take_over_machines_that_are_not_alike() {
    let (one, two) = (warm().await, warm().await);
    let script = "hostname; cat /proc/sys/kernel/random/uuid; exit 3";
    let job = |name: &str| builder().hostname(name).command(["sh", "-c", script]);
    let one = run(one, job("first")).await;
    let two = run(two, job("second")).await;
    assert_eq!((one.0, two.0), (3, 3));
    let (one, two): (Vec<_>, Vec<_>) = (one.1.lines().collect(), two.1.lines().collect());
    assert_eq!((one[0], two[0]), ("first", "second"));
    assert_eq!(one[1].len(), 36);
    assert_ne!(one[1], two[1], "each machine has random numbers of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_waited_joins_the_cgroup_of_its_job() {
    let group = tempfile::tempdir().unwrap();
    let joined = group.path().join("cgroup.procs");
    std::fs::write(&joined, "").unwrap();
    let warm = warm().await;
    let process = warm.process_id().to_string();
    let (status, _) = run(warm, builder().command(["true"]).cgroup(group.path())).await;
    assert_eq!((status, std::fs::read_to_string(&joined).unwrap()), (0, process));

    let builder = builder().command(["true"]).cgroup(group.path().join("no-group"));
    let mut sandbox = builder.launch().await.unwrap();
    let report = sandbox.wait().await;
    let error = report.not_started.as_ref().unwrap().to_string();
    assert!(error.contains("cannot join the cgroup"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_another_kind_gets_a_machine_of_its_own() {
    let warm = warm().await;
    let other = Sandbox::builder().memory(256 << 20).snapshot(false);
    let other = other.command(["sh", "-c", "grep MemTotal /proc/meminfo"]);
    let (status, log) = run(warm, other).await;
    let total: u64 = log.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(status == 0 && total < 256 << 10, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_machine_that_has_ended_costs_the_job_nothing() {
    let warm = warm().await;
    let process = Pid::from_raw(warm.process_id().cast_signed()).unwrap();
    kill_process(process, Signal::KILL).unwrap();
    tokio::time::timeout(Duration::from_secs(10), warm.ended()).await.unwrap();
    assert_eq!(run(warm, builder().command(["echo", "ran"])).await, (0, "ran\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_not_the_same_for_all_jobs_does_not_wait() {
    let like = Sandbox::builder().snapshot(false).command(["true"]).prepare().await.unwrap();
    assert!(matches!(like.warm_up().await, Err(WarmError::NotPlain)));
    let like = Sandbox::builder().memory(333 << 20).command(["true"]).prepare().await.unwrap();
    assert!(matches!(like.warm_up().await, Err(WarmError::NoSnapshot)));
}
