//! Guests that no longer answer: their kernel is stopped, their card is down, or QEMU is stopped.

use std::time::{Duration, Instant};

use metaservice::Contact;
use metaservice::control::{JobState, Killed};
use metaservice_testing::cli::{Cli, Job};
use rustix::process::{Pid, Signal, kill_process};

use crate::METASERVICE;

/// The longest time of an answer: a stopped guest must not hold it up. The time that is promised is
/// 1 or 2 s; a busy test machine may take longer.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Tells the host that the guest is about to be gone, and makes it so. The host needs the time to
/// get the line: what a stopped kernel has not sent is lost.
const HALT: &str = "echo going; sleep 1; halt -f";
const CARD_DOWN: &str = "echo going; sleep 1; ip link set eth0 down; sleep 1000";

fn start(cli: &Cli, name: &str, args: &[&str], script: &str) -> Job {
    let mut job = cli.start(name, &[args, &["--", "sh", "-c", script]].concat());
    job.wait_for_log("going\n");
    job
}

/// Stops QEMU: the guest gets nothing any more.
fn stop_machine(cli: &Cli) {
    let machine = cli.machine().parse().ok().and_then(Pid::from_raw).unwrap();
    kill_process(machine, Signal::STOP).unwrap();
}

/// Checks that other clients are answered at once.
#[track_caller]
fn answers(cli: &Cli, name: &str) {
    let begun = Instant::now();
    let table = cli.run(&["ps"]).text(0);
    assert!(table.lines().any(|line| line.starts_with(name)), "{table}");
    assert!(begun.elapsed() < AT_ONCE);
}

/// Ends a job by force. Checks that its machine is gone when the order is answered.
#[track_caller]
fn force(cli: &Cli, name: &str, job: Job) {
    answers(cli, name);
    let machine = cli.machine();
    cli.run(&["kill", "--force", name]).text(0);
    assert!(!std::path::Path::new(&format!("/proc/{machine}/exe")).exists(), "it runs");
    let finished = job.finish();
    finished.text(137);
    assert!(finished.stderr.contains(r#""event":"forced""#), "{}", finished.stderr);
}

#[test]
fn a_guest_whose_kernel_is_stopped_ends_by_force() {
    let cli = Cli::new(METASERVICE);
    let job = start(&cli, "halted", &[], HALT);
    force(&cli, "halted", job);
}

#[test]
fn a_qemu_that_is_stopped_ends_by_force() {
    let cli = Cli::new(METASERVICE);
    let job = start(&cli, "stopped", &["--artifact", "/none"], "echo going; sleep 1000");
    stop_machine(&cli);
    force(&cli, "stopped", job);
}

#[tokio::test]
async fn a_guest_without_a_card_is_unresponsive_and_then_lost() {
    let cli = Cli::new(METASERVICE);
    let limits = ["--limit", "agent-lost=3s", "--limit", "agent-dead=8s"];
    let job = start(&cli, "cut", &limits, CARD_DOWN);
    // A poll that waits is answered after 30 s. Then the guest is silent.
    let seen = loop {
        let line = job.stderr.recv().unwrap();
        if line.contains(r#""contact":"silent""#) {
            break job.client.job().await.unwrap();
        }
    };
    assert_eq!((seen.state, seen.contact), (JobState::Unresponsive, Contact::Silent));
    answers(&cli, "cut");
    let finished = job.finish();
    finished.text(125);
    let told = "the guest's agent has sent nothing for 8s (--limit agent-dead)";
    assert!(finished.stderr.contains(told), "{}", finished.stderr);
    assert!(finished.stderr.contains("last console lines"), "{}", finished.stderr);
}

#[test]
fn a_timeout_ends_a_job_whose_guest_is_gone() {
    let cli = Cli::new(METASERVICE);
    let args = ["run", "--timeout", "5s", "--artifact", "/none", "--", "sh", "-c"];
    let begun = Instant::now();
    let finished = cli.run(&[&args[..], &["ip link set eth0 down; sleep 1000"]].concat());
    finished.text(124);
    assert!(finished.stderr.contains("its machine is ended"), "{}", finished.stderr);
    assert!(finished.stderr.contains("artifacts were not fetched"), "{}", finished.stderr);
    // An agent that is asked for an artifact and does not answer would take 30 s more.
    assert!(begun.elapsed() < TIMED_OUT, "{:?}", begun.elapsed());
}

/// The boot, the timeout, and the way to the end.
const TIMED_OUT: Duration = Duration::from_secs(35);

#[tokio::test]
async fn a_kill_that_the_guest_does_not_take_ends_its_machine() {
    let cli = Cli::new(METASERVICE);
    let job = start(&cli, "deaf", &[], "echo going; sleep 1000");
    stop_machine(&cli);
    assert_eq!(job.client.kill().await.unwrap(), Killed::Machine);
    let finished = job.finish();
    finished.text(137);
    let told = r#"{"event":"forced","reason":"kill-not-taken"}"#;
    assert!(finished.stderr.contains(told), "{}", finished.stderr);
}
