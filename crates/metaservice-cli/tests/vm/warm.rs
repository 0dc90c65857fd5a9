//! Restored machines: they work like booted ones, and each has its own identity.
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use metaservice_testing::cli::{Cli, finish};
use metaservice_testing::wait::Watch;
use rustix::process::{Pid, Signal, kill_process};

use crate::METASERVICE;

/// A sandbox with its own cache and the user's tools.
struct Warm {
    cli: Cli,
}

impl Warm {
    fn new() -> Self {
        Self { cli: Cli::with_cache(METASERVICE) }
    }

    /// Returns the directory of the snapshots.
    fn saved(&self) -> PathBuf {
        self.cli.work().join("cache/metaservice/warm")
    }

    /// Returns the snapshots, and the rest of unfinished ones.
    fn machines(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.saved()).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }

    fn save(&self) {
        self.cli.run(&["image", "snapshot", "builtin"]).text(0);
        assert_eq!(self.machines().len(), 1);
    }
}

#[test]
fn a_run_that_goes_on_from_a_saved_machine_is_like_any_other() {
    let warm = Warm::new();
    warm.save();
    let script =
        "echo \"hello $WHO of $(hostname)\"; head -c 5000000 /dev/zero > /tmp/zeros; exit 3";
    let args = [
        "run",
        "--json",
        "--name",
        "second",
        "-e",
        "WHO=world",
        "--artifact",
        "/tmp/zeros",
        "--",
        "sh",
        "-c",
        script,
    ];
    for _ in 0..2 {
        let finished = warm.cli.run(&args);
        assert_eq!(finished.text(3), "hello world of second\n");
        assert!(finished.stderr.contains("\"event\":\"restored\""), "{}", finished.stderr);
        let zeros = std::fs::read(warm.cli.work().join("zeros")).unwrap();
        assert!(zeros.len() == 5_000_000 && zeros.iter().all(|byte| *byte == 0));
    }
    // A wrong option costs no snapshot.
    let wrong = warm.cli.run(&["run", "--rootfs", "none", "true"]);
    assert_eq!(wrong.text(125), "");
    assert!(wrong.stderr.contains("in --rootfs: cannot use none"), "{}", wrong.stderr);
    assert_eq!(warm.machines().len(), 1);
    // So does an output that cannot be used, and the job ends.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("{}:80", listener.local_addr().unwrap());
    for (option, value, says) in [
        ("--pcap", "none/x", "cannot write --pcap none/x: "),
        ("--console", "none/x", "cannot write --console none/x: "),
        ("--net-log", "none/x", "cannot write --net-log none/x: "),
        ("--publish", &taken, "Address already in use"),
    ] {
        let wrong = warm.cli.run(&["run", option, value, "true"]);
        assert_eq!(wrong.text(125), "");
        assert!(wrong.stderr.contains(says), "{}", wrong.stderr);
        assert_eq!(warm.machines().len(), 1);
    }
    // A machine that differs from the snapshot boots.
    let args = ["run", "--json", "--no-snapshot", "--memory", "600M", "--", "echo", "booted"];
    let finished = warm.cli.run(&args);
    assert_eq!(finished.text(0), "booted\n");
    assert!(finished.stderr.contains("\"event\":\"booting\""), "{}", finished.stderr);
}

#[test]
fn twenty_machines_from_one_share_nothing_that_should_be_their_own() {
    let warm = Warm::new();
    warm.save();
    let script = "cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | hexdump -v -e '/1 \"%02x\"'; \
                  echo; sha256sum < /run/metaservice/session; sha256sum < /run/metaservice/nonce; \
                  hostname; date +%s";
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut seen = BTreeSet::new();
    for pair in 0..10 {
        let begun = now();
        let start = |n: usize| {
            let name = format!("machine-{}", 2 * pair + n);
            let args = ["run", "--json", "--name", &name, "--", "sh", "-c", script];
            warm.cli.command(args).spawn().unwrap()
        };
        for child in [start(0), start(1)] {
            let finished = finish(child);
            let text = finished.text(0);
            assert!(finished.stderr.contains("\"event\":\"restored\""), "{}", finished.stderr);
            let mut lines: Vec<&str> = text.lines().collect();
            let clock: u64 = lines.pop().unwrap().parse().unwrap();
            assert!((begun..=now()).contains(&clock), "{clock} is not after {begun}");
            assert_eq!(lines.len(), 5, "{text}");
            for line in lines {
                assert!(seen.insert(line.to_owned()), "{line} twice");
            }
        }
    }
    assert_eq!(seen.len(), 100);
}

#[test]
fn a_saved_machine_that_is_broken_is_removed_and_the_run_boots() {
    let warm = Warm::new();
    warm.save();
    let machine = warm.machines().remove(0);
    let memory = std::fs::OpenOptions::new().write(true).open(machine.join("memory")).unwrap();
    memory.set_len(4096).unwrap();
    let finished = warm.cli.run(&["run", "--", "echo", "fine"]);
    assert_eq!(finished.text(0), "fine\n");
    assert!(finished.stderr.contains("the snapshot is broken"), "{}", finished.stderr);
    warm.cli.wait_for_exits();
    // This snapshot was created again, in the background.
    let again = warm.cli.run(&["run", "--json", "--", "echo", "again"]);
    assert_eq!(again.text(0), "again\n");
    assert!(again.stderr.contains("\"event\":\"restored\""), "{}", again.stderr);
}

#[test]
fn an_interrupted_save_leaves_nothing() {
    let warm = Warm::new();
    std::fs::create_dir_all(warm.saved()).unwrap();
    let watch = Watch::new(warm.saved());
    let child = warm.cli.command(["image", "snapshot", "builtin"]).spawn().unwrap();
    watch.wait_for(".making-");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    finish(child).text(130);
    warm.cli.wait_for_exits();
    assert_eq!(warm.machines(), Vec::<PathBuf>::new());
}
