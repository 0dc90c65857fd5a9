//! `metaservice run`: commands, exit statuses, logs, artifacts.

use metaservice_testing::cli::{Cli, finish, sha256};

use crate::METASERVICE;

#[test]
fn a_command_greets_with_its_environment() {
    let cli = Cli::new(METASERVICE);
    std::fs::write(cli.work().join("env"), "# two\nWHO=someone\nPLACE=machine\n").unwrap();
    let script = r#"echo "hello $WHO in the $PLACE"; id -u; cat /proc/sys/kernel/hostname"#;
    let args = [
        "run",
        "--name",
        "greeter",
        "--env-file",
        "env",
        "-e",
        "WHO=world",
        "--",
        "sh",
        "-c",
        script,
    ];
    assert_eq!(cli.run(&args).text(0), "hello world in the machine\n0\ngreeter\n");
}

#[test]
fn a_command_starts_as_the_flags_say() {
    let cli = Cli::new(METASERVICE);
    let script = "pwd; id -u; cat /proc/sys/kernel/hostname";
    let options = ["--entrypoint", "sh", "-w", "/tmp", "-u", "7:8", "--hostname", "db.example"];
    let args = [&["run", "--name", "a"], &options[..], &["--", "-c", script]].concat();
    assert_eq!(cli.run(&args).text(0), "/tmp\n7\ndb.example\n");
    let missing = cli.run(&["run", "-w", "/no/such", "--", "true"]);
    let text = missing.text(126);
    assert!(format!("{text}{}", missing.stderr).contains("'/no/such'"), "{text}");
}

/// Both outputs, in `run`, in its log file and in `logs`.
#[test]
fn stdout_and_stderr_are_two_outputs() {
    let cli = Cli::new(METASERVICE);
    let script = "echo o; sleep 0.2; echo e >&2; sleep 0.2; echo p";
    let split = cli.run(&["run", "-q", "--log", "log", "--", "sh", "-c", script]);
    assert_eq!((split.text(0), split.stderr.as_str()), ("o\np\n".to_owned(), "e\n"));
    assert_eq!(std::fs::read_to_string(cli.work().join("log")).unwrap(), "o\ne\np\n");
    let merged = cli.run(&["run", "-q", "--stderr", "merged", "--", "sh", "-c", script]);
    assert_eq!((merged.text(0), merged.stderr.as_str()), ("o\ne\np\n".to_owned(), ""));
    let json = cli.run(&["run", "--json", "--", "sh", "-c", script]);
    assert_eq!(json.text(0), "o\ne\np\n");
    for line in json.stderr.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect(line);
    }

    let script = format!("{script}; until test -e /tmp/end; do sleep 0.1; done");
    let mut job = cli.start("two", &["--", "sh", "-c", &script]);
    job.wait_for_log("p");
    let shown = cli.run(&["logs", "--merged", "two"]).text(0);
    assert_eq!(shown, "o\ne\np\n");
    let logs = cli.run(&["logs", "two"]);
    assert_eq!((logs.text(0), logs.stderr.as_str()), ("o\np\n".to_owned(), "e\n"));
    let tail = cli.run(&["logs", "-n", "2", "two"]);
    assert_eq!((tail.text(0), tail.stderr.as_str()), ("p\n".to_owned(), "e\n"));
    let times = cli.run(&["logs", "-t", "two"]);
    let lines: Vec<(String, String)> = (times.text(0) + &times.stderr)
        .lines()
        .map(|line| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap())
        .collect();
    assert_eq!(lines.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["o", "p", "e"]);
    // The command waits 0.2 s between two lines.
    let times: Vec<_> =
        lines.iter().map(|(time, _)| humantime::parse_rfc3339(time).unwrap()).collect();
    assert!(times[0] < times[2] && times[2] < times[1], "{lines:?}");
    cli.run(&["exec", "two", "touch", "/tmp/end"]).text(0);
    job.finish().text(0);
}

#[test]
fn the_status_of_the_command_is_that_of_the_tool() {
    let cli = Cli::new(METASERVICE);
    let finished = cli.run(&["run", "--", "sh", "-c", "echo before; exit 3"]);
    assert_eq!(finished.text(3), "before\n");
    assert_eq!(cli.run(&["run", "--", "sh", "-c", "kill -9 $$"]).text(137), "");
}

#[test]
fn a_command_that_cannot_be_run_or_found_says_why_in_the_log() {
    let cli = Cli::new(METASERVICE);
    let missing = cli.run(&["run", "--", "no-such-program"]);
    assert_eq!(missing.text(127), "");
    assert!(missing.stderr.contains("no-such-program"), "{}", missing.stderr);
    let unfit = cli.run(&["run", "--stderr", "merged", "--", "/etc/passwd"]).text(126);
    assert!(unfit.contains("/etc/passwd"), "{unfit}");
}

#[test]
fn fifty_megabytes_of_binary_log_arrive_exactly() {
    let cli = Cli::new(METASERVICE);
    let script =
        "head -c 50000000 /dev/urandom > /tmp/b; sha256sum < /tmp/b > /tmp/sum; cat /tmp/b";
    let args = ["run", "--artifact", "/tmp/sum", "--log", "copy", "--", "sh", "-c", script];
    let finished = cli.run(&args);
    assert_eq!((finished.status, finished.stdout.len()), (Some(0), 50_000_000));
    let out = cli.work().join("out");
    std::fs::write(&out, &finished.stdout).unwrap();
    let sum = std::fs::read_to_string(cli.work().join("sum")).unwrap();
    assert_eq!(sum.split(' ').next().unwrap(), sha256(&out));
    assert_eq!(sha256(&cli.work().join("copy")), sha256(&out));
}

#[test]
fn an_artifact_of_200_megabytes_arrives_exactly_though_the_command_failed() {
    let cli = Cli::new(METASERVICE);
    let script = "head -c 200000000 /dev/urandom > /tmp/a; sha256sum < /tmp/a; exit 9";
    let finished = cli.run(&[
        "run",
        "--artifact",
        "/tmp/a:big",
        "--artifact",
        "/tmp/none",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let log = finished.text(9);
    let big = cli.work().join("big");
    assert_eq!(std::fs::metadata(&big).unwrap().len(), 200_000_000);
    assert_eq!(log.split(' ').next().unwrap(), sha256(&big));
    assert!(
        finished.stderr.contains("cannot fetch /tmp/none: the guest has no such file or directory")
    );
    assert!(!cli.work().join("none").exists());
}

#[test]
fn an_artifact_that_is_missing_fails_a_run_that_succeeded() {
    let cli = Cli::new(METASERVICE);
    std::fs::write(cli.work().join("x"), "what was there").unwrap();
    let finished = cli.run(&["run", "--artifact", "/tmp/x", "--", "true"]);
    finished.text(125);
    assert_eq!(std::fs::read_to_string(cli.work().join("x")).unwrap(), "what was there");
}

#[test]
fn a_timeout_kills_the_command_and_keeps_what_it_wrote() {
    let cli = Cli::new(METASERVICE);
    let script = "trap '' TERM; echo kept > /tmp/kept; echo started; while :; do sleep 1; done";
    let args = ["run", "--timeout", "2", "--artifact", "/tmp/kept", "--", "sh", "-c", script];
    let finished = cli.run(&args);
    assert_eq!(finished.text(124), "started\n");
    assert!(finished.stderr.contains("--timeout of 2s has passed"), "{}", finished.stderr);
    assert_eq!(std::fs::read_to_string(cli.work().join("kept")).unwrap(), "kept\n");
}

#[test]
fn the_kernel_has_random_addresses_if_asked_for() {
    let cli = Cli::new(METASERVICE);
    let text =
        |flag: &str| cli.run(&["run", flag, "--", "grep", "-w", "_text", "/proc/kallsyms"]).text(0);
    let fixed = "ffffffff81000000 T _text\n";
    if metaservice_qemu::Arch::HOST == metaservice_qemu::Arch::X86_64 {
        assert_eq!(text("--no-snapshot"), fixed);
    }
    // A random address equals the fixed one in 1 of 500 boots, and twice in a row in 1 of 250,000.
    assert!((0..2).any(|_| text("--kaslr") != fixed));
}

#[test]
fn two_machines_run_side_by_side() {
    let cli = Cli::new(METASERVICE);
    let script = "cat /proc/sys/kernel/random/boot_id; echo $N > /tmp/n; sleep 2; cat /tmp/n";
    let start = |n: &str| {
        let variable = format!("N={n}");
        let artifact = format!("/tmp/n:n{n}");
        let args = ["run", "-e", &variable, "--artifact", &artifact, "--", "sh", "-c", script];
        cli.command(args).spawn().unwrap()
    };
    let running = [start("1"), start("2")];
    let [one, two] = running.map(|child| finish(child).text(0));
    assert_ne!(one.lines().next(), two.lines().next(), "one machine, not two");
    assert_eq!((one.lines().nth(1), two.lines().nth(1)), (Some("1"), Some("2")));
    for n in ["1", "2"] {
        let artifact = std::fs::read_to_string(cli.work().join(format!("n{n}")));
        assert_eq!(artifact.unwrap().trim(), n);
    }
}

#[test]
fn the_wire_and_the_console_can_be_kept() {
    let cli = Cli::new(METASERVICE);
    let args = ["run", "--pcap", "wire.pcap", "--console", "console.txt", "--", "echo", "done"];
    assert_eq!(cli.run(&args).text(0), "done\n");
    let wire = std::fs::read(cli.work().join("wire.pcap")).unwrap();
    let magic = u32::from_le_bytes(wire[..4].try_into().unwrap());
    assert!([0xa1b2_c3d4, 0xa1b2_3c4d].contains(&magic), "{magic:x}");
    let fetch = b"GET /engine/v1/execute HTTP/1.1";
    assert!(wire.windows(fetch.len()).any(|bytes| bytes == fetch), "the wire lacks the fetch");
    assert!(cli.work().join("console.txt").exists());
}

#[test]
fn files_of_the_wire_and_the_console_end_at_their_limits_and_the_job_does_not() {
    let cli = Cli::new(METASERVICE);
    let script = "head -c 40000 /dev/zero | tr '\\0' x > /dev/console; head -c 100000 /dev/zero";
    let args = ["run", "--pcap", "wire", "--console", "console", "--limit", "pcap=20K"];
    let finished =
        cli.run(&[&args[..], &["--limit", "console=20K", "--", "sh", "-c", script]].concat());
    assert_eq!(finished.text(0).len(), 100_000);
    let length = |name: &str| std::fs::metadata(cli.work().join(name)).unwrap().len();
    assert!((1 << 10..=20 << 10).contains(&length("wire")), "{}", length("wire"));
    let console = std::fs::read(cli.work().join("console")).unwrap();
    let (kept, end) = console.split_at(20 << 10);
    assert!(!kept.windows(9).any(|text| text == b"ends here"));
    assert_eq!(end, b"\nmetaservice: the console's file ends here, at 20480 bytes\n");
    for told in ["--pcap wire ends at 20480 bytes", "--console console ends at 20480 bytes"] {
        assert_eq!(finished.stderr.matches(told).count(), 1, "{}", finished.stderr);
    }
}
