//! Machines start, end in each way, and leave nothing behind.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::guest::{TIMEOUT, assert_ends, handle, hear, is_empty, start, with_script};
use metaservice_qemu::{
    Boot, Disk, DiskFormat, ExitCause, Machine, MachineSpec, MachineState, StartError,
};
use rustix::process::{Signal, pidfd_send_signal};

const SLEEP: &str = "echo ready; while :; do sleep 1000; done";

#[tokio::test]
async fn a_guest_boots_prints_and_powers_off() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let file = log.reopen().unwrap();
    let machine = start(with_script("echo hello from init; poweroff -f").console_log(file)).await;
    let qemu = handle(machine.process_id());
    let exit = tokio::time::timeout(TIMEOUT, machine.wait()).await.unwrap();
    assert_eq!(exit.cause, ExitCause::GuestPoweredOff, "{:#?}", machine.console().tail(40));
    assert!(exit.status.success());
    assert!(machine.console().tail(10).iter().any(|line| line == "hello from init"));
    assert!(std::fs::read_to_string(log.path()).unwrap().contains("hello from init\r\n"));
    assert_eq!(*machine.states().borrow(), MachineState::Exited);
    assert_eq!(machine.wait().await, exit, "the answer stays the same");
    assert!(machine.status().await.is_err());
    assert_ends(&qemu);
}

#[tokio::test]
async fn the_power_button_reaches_the_guest() {
    let script = "echo ready; for b in /dev/input/event*; do head -c 24 $b >/dev/null && poweroff -f & done; wait";
    let machine = start(with_script(script)).await;
    hear(&machine, "ready").await;
    let exit = machine.power_down(TIMEOUT).await;
    assert_eq!(exit.cause, ExitCause::GuestPoweredOff, "{:#?}", machine.console().tail(40));
}

#[tokio::test]
async fn a_guest_that_does_not_hear_the_button_is_made_to_end() {
    let machine = start(with_script(SLEEP)).await;
    hear(&machine, "ready").await;
    let exit = machine.power_down(Duration::from_millis(200)).await;
    assert_eq!(exit.cause, ExitCause::Killed);
    assert!(exit.status.success(), "QEMU quits by itself: {}", exit.status);
}

#[tokio::test]
async fn a_kernel_panic_is_known_at_once() {
    let machine = start(with_script("echo ends now; exit 3")).await;
    let exit = tokio::time::timeout(TIMEOUT, machine.wait()).await.unwrap();
    let ExitCause::GuestPanicked { line: Some(line) } = exit.cause else {
        panic!("{:?}", exit.cause)
    };
    assert!(line.contains("Kernel panic - not syncing: Attempted to kill init!"), "{line}");
    assert!(machine.console().tail(100).iter().any(|line| line == "ends now"));
}

#[tokio::test]
async fn a_reset_ends_the_machine() {
    let machine = start(with_script("reboot -f")).await;
    let exit = tokio::time::timeout(TIMEOUT, machine.wait()).await.unwrap();
    assert_eq!(exit.cause, ExitCause::GuestReset, "{:#?}", machine.console().tail(40));
}

#[tokio::test]
async fn dropping_leaves_no_process() {
    let machine = start(with_script(SLEEP)).await;
    let qemu = handle(machine.process_id());
    drop(machine);
    assert_ends(&qemu);
}

#[tokio::test]
async fn a_frozen_qemu_can_be_killed_and_powered_down() {
    for order in ["kill", "power down"] {
        let machine = start(with_script(SLEEP)).await;
        let qemu = handle(machine.process_id());
        pidfd_send_signal(&qemu, Signal::STOP).unwrap();
        let exit = match order {
            "kill" => machine.kill().await,
            _ => machine.power_down(Duration::from_millis(100)).await,
        };
        assert_eq!(exit.cause, ExitCause::Killed, "{order}");
        assert_ends(&qemu);
    }
}

#[tokio::test]
async fn a_qemu_that_somebody_else_ends_has_crashed() {
    let machine = start(with_script(SLEEP)).await;
    pidfd_send_signal(handle(machine.process_id()), Signal::KILL).unwrap();
    let cause = machine.wait().await.cause;
    assert!(matches!(cause, ExitCause::Signalled { signal: 9, .. }), "{cause:?}");
    assert!(cause.to_string().starts_with("QEMU was ended by SIGKILL"), "{cause}");
}

#[tokio::test]
async fn a_machine_can_be_paused() {
    let machine = start(with_script(SLEEP)).await;
    let mut states = machine.states();
    assert_eq!(machine.status().await.unwrap(), "running");
    machine.pause().await.unwrap();
    assert_eq!(machine.status().await.unwrap(), "paused");
    states.wait_for(|state| *state == MachineState::Paused).await.unwrap();
    machine.resume().await.unwrap();
    states.wait_for(|state| *state == MachineState::Running).await.unwrap();
    hear(&machine, "ready").await;
}

#[tokio::test]
async fn a_machine_joins_its_cgroup_or_does_not_start() {
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for group in [&first, &second] {
        std::fs::write(group.path().join("cgroup.procs"), "").unwrap();
    }
    let joined = |group: &tempfile::TempDir| {
        std::fs::read_to_string(group.path().join("cgroup.procs")).unwrap()
    };
    let machine = start(with_script(SLEEP).cgroup(first.path())).await;
    let process = machine.process_id().to_string();
    assert_eq!((joined(&first), joined(&second)), (process.clone(), String::new()));
    machine.join_cgroup(second.path()).await.unwrap();
    assert_eq!(joined(&second), process);

    let no_group = first.path().join("no-group");
    let error = Machine::start(with_script(SLEEP).cgroup(&no_group)).await.unwrap_err();
    assert!(matches!(&error, StartError::Cgroup(error) if error.directory == no_group), "{error}");
}

#[tokio::test]
async fn two_machines_do_not_touch_each_other() {
    let (one, other) = tokio::join!(
        start(with_script("echo this is one; while :; do sleep 1000; done")),
        start(with_script("echo this is other; while :; do sleep 1000; done")),
    );
    tokio::join!(hear(&one, "this is one"), hear(&other, "this is other"));
    assert_ne!(one.process_id(), other.process_id());
    assert_eq!(one.kill().await.cause, ExitCause::Killed);
    assert_eq!(other.status().await.unwrap(), "running");
}

#[tokio::test]
async fn what_qemu_says_when_it_cannot_start_is_told() {
    let tools = crate::guest::tools();
    let not_a_kernel = tempfile::NamedTempFile::new().unwrap();
    let boot =
        Boot::Direct { kernel: not_a_kernel.path().into(), initramfs: None, arguments: Vec::new() };
    let error = Machine::start(MachineSpec::new(&tools.qemu, boot)).await.unwrap_err();
    let StartError::Ended { stderr } = &error else { panic!("{error:?}") };
    assert!(stderr.contains("kernel"), "{stderr}");

    let boot =
        Boot::Direct { kernel: "/no/such/kernel".into(), initramfs: None, arguments: Vec::new() };
    let error = Machine::start(MachineSpec::new(&tools.qemu, boot)).await.unwrap_err();
    assert!(matches!(error, StartError::Spec(_)), "{error:?}");
}

/// The variable with the directory for a second run of this test, which is the parent to be killed.
const PARENT: &str = "METASERVICE_TEST_PARENT";

async fn be_killed(scratch: &std::path::Path) {
    let disk = Disk::new(scratch.join("disk"), DiskFormat::Raw).size(1 << 20);
    let machine = start(with_script(SLEEP).disk(disk).scratch(scratch.join("empty"))).await;
    hear(&machine, "ready").await;
    println!("qemu={}", machine.process_id());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn the_machine_dies_with_a_killed_parent() {
    if let Some(scratch) = std::env::var_os(PARENT) {
        return be_killed(scratch.as_ref()).await;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("disk"), vec![0; 1 << 20]).unwrap();
    std::fs::create_dir(directory.path().join("empty")).unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::the_machine_dies_with_a_killed_parent", "--nocapture"])
        .env(PARENT, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines().map_while(Result::ok);
    let id = lines
        .filter_map(|line| line.split_once("qemu=").map(|(_, id)| id.trim().to_owned()))
        .next()
        .unwrap();
    let qemu = handle(id.parse().unwrap());
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert_ends(&qemu);
    assert!(is_empty(&directory.path().join("empty")), "the scratch file is gone");
}
