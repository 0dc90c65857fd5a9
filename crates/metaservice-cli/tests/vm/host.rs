//! The host of a run: environment, signals, cache, and outputs that fail.

use metaservice_testing::cli::{Cli, Finished, finish, wait_for};
use std::io::Read;
use std::process::{Command, Stdio};

use crate::METASERVICE;

#[test]
fn a_secret_does_not_stay_in_the_tools_environment() {
    let cli = Cli::new(METASERVICE);
    let args = ["run", "--json", "--name", "secret", "--secret", "TOKEN", "--", "sh", "-c"];
    let mut command = cli.command(args);
    let mut child =
        command.arg("echo \"$TOKEN\"; sleep 600").env("TOKEN", "9f3b7c").spawn().unwrap();
    let pid = child.id();
    let stderr = wait_for(&mut child, "\"event\":\"started\"");
    let mut stdout = child.stdout.take().unwrap();
    let mut said = [0; 6];
    stdout.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"9f3b7c");
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8_lossy(&environment);
    assert!(text.contains("TMPDIR=") && !text.contains("9f3b7c"), "{text}");
    // The file that passed the secret is empty.
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let path = entry.path();
        if std::fs::read_link(&path).is_ok_and(|to| to.starts_with("/memfd:secrets")) {
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        }
    }
    let name = ["kill", "secret"];
    cli.run(&name).text(0);
    child.wait().unwrap();
    drop(stderr);
}

#[test]
fn what_the_parent_ignores_or_blocks_changes_nothing() {
    let cli = Cli::new(METASERVICE);
    let tool = cli.command(["run", "--", "echo", "up"]);
    let mut command = std::process::Command::new("python3");
    // Ignores and blocks all signals that a parent can, and executes the tool.
    let script = "import os, signal, sys\n\
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1})\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    command.args(["-c", script]).arg(tool.get_program()).args(tool.get_args());
    command.envs(tool.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(cli.work()).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    assert_eq!(finish(command.spawn().unwrap()).text(0), "up\n");
}

#[test]
fn a_machine_begins_with_the_usual_dispositions_and_limits() {
    let cli = Cli::new(METASERVICE);
    let tool = cli.command(["run", "--name", "child", "--json", "--", "sleep", "600"]);
    let mut command = std::process::Command::new("python3");
    let script = "import os, resource, signal, sys\n\
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n\
        resource.setrlimit(resource.RLIMIT_NOFILE, (1500, most))\n\
        for number in range(1, 65):\n\
            \x20\x20if number not in (1, 2, 3, 9, 11, 15, 19, 20, 21, 22, 32, 33):\n\
            \x20\x20\x20\x20signal.signal(number, signal.SIG_IGN)\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    command.args(["-c", script]).arg(tool.get_program()).args(tool.get_args());
    command.envs(tool.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(cli.work()).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut job = command.spawn().unwrap();
    let _stderr = wait_for(&mut job, "\"event\":\"started\"");
    let of =
        |pid: &str, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let machine = cli.machine();
    let limits = of(&machine, "limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("1500"), "{files}");
    let status = of(&machine, "status");
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    };
    // QEMU itself ignores SIGPIPE and blocks the signals of its threads. The C library uses 32 and
    // 33.
    assert_eq!(mask("SigIgn") & !(1 << 12 | 0b11 << 31), 0, "{status}");
    assert_eq!(mask("SigBlk") & (1 << 14 | 1 << 16), 0, "SIGTERM and SIGCHLD: {status}");
    cli.run(&["kill", "child"]).text(0);
    job.wait().unwrap();
}

#[test]
fn what_waits_for_the_reader_of_a_fifo_ends_by_a_signal() {
    let cli = Cli::new(METASERVICE);
    let made = std::process::Command::new("mkfifo").arg(cli.work().join("fifo")).status();
    assert!(made.unwrap().success());
    let job = cli.start("there", &["--", "sleep", "600"]);
    for args in [
        &["run", "--verbose", "--console", "fifo", "--", "true"][..],
        &["run", "--verbose", "--pcap", "fifo", "--", "true"],
        &["cp", "--verbose", "there:/etc/passwd", "fifo"],
    ] {
        let mut child = cli.command(args).spawn().unwrap();
        let _stderr = wait_for(&mut child, "opening a file to write to");
        let pid = child.id().to_string();
        assert!(
            std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success()
        );
        assert_eq!(child.wait().unwrap().code(), Some(130), "{args:?}");
    }
    cli.run(&["kill", "there"]).text(0);
    job.finish();
}

#[test]
fn qemu_has_a_filter_and_nothing_of_our_environment_that_is_secret() {
    let cli = Cli::new(METASERVICE);
    let args = ["run", "--json", "--secret", "TOKEN", "--", "sh", "-c", "echo $TOKEN; sleep 1000"];
    let mut child = cli.command(args).env("TOKEN", "t0ken-of-mine").spawn().unwrap();
    let _said = wait_for(&mut child, "\"event\":\"started\"");
    let mut log = [0; 13];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut log).unwrap();
    assert_eq!(&log, b"t0ken-of-mine");
    let machine = cli.machine();
    let read = |name: &str| std::fs::read(format!("/proc/{machine}/{name}")).unwrap();
    let environment = String::from_utf8(read("environ")).unwrap();
    assert!(!environment.contains("TOKEN") && !environment.contains("t0ken"), "{environment:?}");
    let status = String::from_utf8(read("status")).unwrap();
    assert!(status.contains("Seccomp:\t2\n"), "{status}");
    child.kill().unwrap();
    child.wait().unwrap();
    cli.wait_for_exits();
    cli.remove_sockets();
}

/// Returns a sandbox with its own kernels and initial RAM disks.
fn with_cache() -> (Cli, std::path::PathBuf) {
    let cli = Cli::with_cache(METASERVICE);
    let cache = cli.work().join("cache/metaservice");
    for name in ["vmlinux", "initramfs"] {
        // The entry is a link to the user's cache.
        let _ = std::fs::remove_file(cache.join(name));
    }
    (cli, cache)
}

/// Boots a machine in a script with its own mount namespace. `$0` is the tool.
fn boot_within(cli: &Cli, script: &str) -> Finished {
    let inner = cli.command::<&str>([]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-ec"]);
    command.arg(format!("{script}\n\"$0\" run -- echo fine")).arg(inner.get_program());
    command.current_dir(cli.work()).env("METASERVICE_NO_SNAPSHOT", "1");
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap())
}

#[test]
fn a_damaged_cache_is_mended_with_one_note() {
    let (cli, cache) = with_cache();
    let run = || {
        let finished = boot_within(&cli, "");
        assert_eq!(finished.text(0), "fine\n");
        finished.stderr
    };
    let damage = |length: u64| {
        for name in ["vmlinux", "initramfs"] {
            for entry in std::fs::read_dir(cache.join(name)).unwrap() {
                let path = entry.unwrap().path();
                if !path.file_name().unwrap().to_str().unwrap().starts_with('.') {
                    let file = std::fs::File::options().write(true).open(path).unwrap();
                    file.set_len(length).unwrap();
                }
            }
        }
    };
    assert!(!run().contains("damaged"));
    for length in [0, 1_000_000] {
        damage(length);
        let said = run();
        let expected =
            if metaservice_qemu::Arch::HOST == metaservice_qemu::Arch::X86_64 { 2 } else { 1 };
        assert_eq!(said.matches("was damaged").count(), expected, "{said}");
    }
    assert!(!run().contains("damaged"));
}

#[test]
fn a_cache_that_cannot_be_written_costs_time_and_not_the_run() {
    let (cli, _) = with_cache();
    let closed = "mount --bind cache/metaservice cache/metaservice; \
                  mount -o remount,bind,ro cache/metaservice";
    let full = "mkdir -p full/metaservice; mount -t tmpfs -o size=1M none full; \
                cp -a cache/metaservice full/; export XDG_CACHE_HOME=$PWD/full";
    for (way, notes) in [(closed, 1), (full, 1), ("", 0), (closed, 0)] {
        let finished = boot_within(&cli, way);
        assert_eq!(finished.text(0), "fine\n");
        let said = finished.stderr.matches("the cache cannot be written").count();
        assert_eq!(said, notes, "{way}: {}", finished.stderr);
    }
}

/// Errors of standard error change neither the artifacts nor the status of the job.
#[test]
fn a_stderr_that_cannot_be_written_changes_nothing() {
    let cli = Cli::new(METASERVICE);
    let args =
        ["run", "--artifact", "/etc/passwd:p", "--", "sh", "-c", "echo log; echo err >&2; exit 3"];
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let finished = finish(cli.command(args).stderr(full).spawn().unwrap());
    assert_eq!(finished.text(3), "log\n");
    assert!(std::fs::read_to_string(cli.work().join("p")).unwrap().contains("root"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let args =
        ["run", "--verbose", "--verbose", "--", "sh", "-c", "echo log; echo err >&2; exit 4"];
    let finished = finish(cli.command(args).stderr(writer).spawn().unwrap());
    assert_eq!(finished.text(4), "log\n");
}

#[test]
fn a_log_without_a_reader_or_a_place_is_told_as_shells_do() {
    let cli = Cli::new(METASERVICE);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let finished = finish(cli.command(["run", "--", "yes"]).stdout(writer).spawn().unwrap());
    assert_eq!((finished.status, finished.stderr.as_str()), (Some(141), ""));
    // The other outputs are still written.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let args = ["run", "--artifact", "/etc/passwd:p", "--", "yes"];
    let finished = finish(cli.command(args).stdout(writer).spawn().unwrap());
    assert_eq!(finished.status, Some(141), "{}", finished.stderr);
    assert!(cli.work().join("p").exists() && !finished.stderr.contains("log"));

    let closed = ["-c", "exec \"$0\" \"$@\" >&-", env!("CARGO_BIN_EXE_metaservice")];
    let template = cli.command([""]);
    let mut shell = std::process::Command::new("sh");
    shell.args(closed).args(["run", "--", "echo", "lost"]).current_dir(cli.work());
    shell.envs(template.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let told = shell.output().unwrap();
    let stderr = String::from_utf8(told.stderr).unwrap();
    assert_eq!(told.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("the log is shown nowhere (--log FILE"), "{stderr}");
}
