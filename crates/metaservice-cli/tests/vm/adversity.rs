//! Jobs on a machine that is frozen, and with a full disk.
// The test needs real time: a machine is frozen for two minutes.
#![allow(clippy::disallowed_methods)]

use metaservice_testing::cli::{Cli, finish, sha256};
use metaservice_testing::wait::until;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::METASERVICE;

/// How long the machine is frozen: longer than the timeout of any connection.
const FROZEN: Duration = Duration::from_secs(120);

const LENGTH: u64 = 200 * 1024 * 1024;

/// The machine is frozen for two minutes, during 200 MB of log and of files in both directions.
#[test]
fn a_machine_that_was_frozen_goes_on_where_it_was() {
    let cli = Cli::new(METASERVICE);
    // The root has no room for two files of this length.
    let script = "dd if=/dev/urandom of=/blob bs=1M count=200 2>/dev/null; \
                  until test -e /go; do sleep 0.1; done; cat /blob; sha256sum </blob; \
                  until test -e /tmp/in; do sleep 0.1; done; sha256sum </tmp/in";
    let mut job = cli.start("frozen", &["--", "sh", "-c", script]);
    let mut log = job.child.stdout.take().unwrap();
    job.child.stdout = Some(empty());
    let received = Arc::new(AtomicU64::new(0));
    let reading = std::thread::spawn({
        let received = Arc::clone(&received);
        move || {
            let mut all = Vec::new();
            let mut block = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = log.read(&mut block) {
                all.extend_from_slice(&block[..count]);
                received.fetch_add(count as u64, Ordering::SeqCst);
            }
            all
        }
    });
    // Wait for all of it. The command stops itself after it has created the file.
    let made = [
        "exec",
        "frozen",
        "sh",
        "-c",
        "until test $(stat -c %s /blob) = 209715200; do sleep 0.2; done",
    ];
    cli.run(&made).text(0);
    let source = cli.work().join("source/blob");
    std::fs::create_dir(cli.work().join("source")).unwrap();
    let mut random = std::fs::File::open("/dev/urandom").unwrap().take(LENGTH);
    std::io::copy(&mut random, &mut std::fs::File::create(&source).unwrap()).unwrap();
    let sending = cli.command(["cp", "-q", "source/blob", "frozen:/tmp/in"]).spawn().unwrap();
    let sent = || position(sending.id(), &source);
    let copy = cli.command(["cp", "-q", "frozen:/blob", "copied"]).spawn().unwrap();
    cli.run(&["exec", "frozen", "touch", "/go"]).text(0);
    // The copy has no name until it is complete.
    let copied = || unnamed(copy.id(), &cli.work());
    let midst = LENGTH / 100..LENGTH;
    until("each transfer is in progress", || {
        let come = received.load(Ordering::SeqCst);
        [come, copied(), sent()].iter().all(|count| midst.contains(count))
    });
    let machine = cli.machine();
    let signal = |name: &str| Command::new("kill").args([name, &machine]).status().unwrap();
    assert!(signal("-STOP").success());
    std::thread::sleep(FROZEN);
    let before = [received.load(Ordering::SeqCst), copied(), sent()];
    assert!(signal("-CONT").success());
    assert!(before.iter().all(|count| midst.contains(count)), "it was over before: {before:?}");
    finish(copy).text(0);
    finish(sending).text(0);
    job.finish().text(0);
    let log = reading.join().unwrap();
    let (blob, told) = log.split_at(usize::try_from(LENGTH).unwrap());
    std::fs::write(cli.work().join("log"), blob).unwrap();
    let told = String::from_utf8(told.to_vec()).unwrap();
    let told: Vec<_> = told.split_whitespace().collect();
    let (logged, sent) = (sha256(&cli.work().join("log")), sha256(&source));
    assert_eq!(told, [&*logged, "-", &*sent, "-"]);
    assert_eq!(sha256(&cli.work().join("copied")), sha256(&cli.work().join("log")));
}

/// Returns the position of a process in an open file, or 0.
fn position(pid: u32, file: &Path) -> u64 {
    let position = || {
        let open = descriptors(pid).find(|(_, to)| to == file)?.0;
        let number = open.file_name()?.to_str()?.to_owned();
        let said = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        said.lines().find_map(|line| line.strip_prefix("pos:")?.trim().parse().ok())
    };
    position().unwrap_or(0)
}

/// Returns the length of an unnamed file that a process writes in a directory, or 0.
fn unnamed(pid: u32, directory: &Path) -> u64 {
    let is_unnamed =
        |to: &Path| to.parent() == Some(directory) && to.to_string_lossy().ends_with(" (deleted)");
    let open = descriptors(pid).find(|(_, to)| is_unnamed(to));
    open.and_then(|(open, _)| std::fs::metadata(open).ok()).map_or(0, |metadata| metadata.len())
}

/// Returns the descriptors of a process, each with its target.
fn descriptors(pid: u32) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), std::fs::read_link(entry.path()).ok()?)))
}

/// Returns an empty stream, to replace one that another thread reads.
fn empty() -> std::process::ChildStdout {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    child.wait().unwrap();
    stdout
}

#[test]
fn a_full_disk_costs_the_artifact_and_not_the_job() {
    let cli = Cli::new(METASERVICE);
    let mount = "mount -t tmpfs -o size=2m none \"$TMPDIR\" && exec \"$@\"";
    let script = "head -c 8000000 /dev/zero > /big; echo small > /small; echo fine; exit 3";
    let tool = cli.command([
        "run",
        "--artifact",
        "/big",
        "--artifact",
        "/small",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]);
    command.arg(tool.get_program()).args(tool.get_args()).current_dir(cli.work());
    command.envs(tool.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let finished = finish(command.spawn().unwrap());
    assert_eq!(finished.text(3), "fine\n");
    let told = &finished.stderr;
    assert!(told.contains("cannot fetch /big") && told.contains("No space left"), "{told}");
    assert_eq!(std::fs::read_to_string(cli.work().join("small")).unwrap(), "small\n");
    assert!(!cli.work().join("big").exists());
}
