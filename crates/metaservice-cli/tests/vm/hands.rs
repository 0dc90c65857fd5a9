//! Operations on a running job in a real machine: files, shells, kill, signals.
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use metaservice::ChildError;
use metaservice_testing::cli::{Cli, finish};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::METASERVICE;

const WAIT: &str = "echo ready; while [ ! -e /tmp/done ]; do sleep 1; done";

#[test]
fn ten_thousand_files_are_listed() {
    let cli = Cli::new(METASERVICE);
    let script = format!(
        "mkdir -p /tmp/d/e; cd /tmp/d; for i in $(seq 9999); do : > f$i; done; : > e/g; ln -s f1 link; mkfifo fifo; {WAIT}"
    );
    let mut job = cli.start("lister", &["--", "sh", "-c", &script]);
    job.wait_for_log("ready");
    let listed = cli.run(&["ls", "-R", "lister", "/tmp/d"]).text(0);
    let names: Vec<&str> = listed.lines().collect();
    // The directory, the link and the FIFO are included.
    assert_eq!(names.len(), 10_003);
    assert!(["f9999", "e", "e/g", "link", "fifo"].iter().all(|name| names.contains(name)));
    assert_eq!(cli.run(&["ls", "lister", "/tmp/d"]).text(0).lines().count(), 10_002);
    let missing = cli.run(&["ls", "lister", "/no/such"]);
    missing.text(125);
    assert_eq!(missing.stderr.lines().count(), 1, "{}", missing.stderr);
    assert!(cli.run(&["ps"]).text(0).contains("lister"));
    cli.release("lister");
    job.finish().text(0);
}

#[test]
fn a_shell_carries_42_mebibytes_and_7_bytes_both_ways() {
    let cli = Cli::new(METASERVICE);
    let mut job = cli.start("echo", &["--", "sh", "-c", WAIT]);
    job.wait_for_log("ready");
    // No block size divides this length, and the bytes have no pattern.
    let mut state = 1u64;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(42 * 1024 * 1024 + 7)
    .collect();
    let mut child =
        cli.command(["exec", "-i", "echo", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeding = std::thread::spawn({
        let content = content.clone();
        move || stdin.write_all(&content)
    });
    let echoed = finish(child);
    feeding.join().unwrap().unwrap();
    assert_eq!(echoed.status, Some(0), "{}", echoed.stderr);
    assert!(echoed.stdout == content, "{} of {} bytes", echoed.stdout.len(), content.len());

    let apart = cli.run(&["exec", "echo", "sh", "-c", "echo out; echo err >&2; exit 1"]);
    assert_eq!((apart.text(1), apart.stderr.as_str()), ("out\n".to_owned(), "err\n"));
    cli.release("echo");
    job.finish().text(0);
}

#[tokio::test]
async fn a_terminal_has_a_size_that_follows() {
    let cli = Cli::new(METASERVICE);
    let mut job = cli.start("terminal", &["--", "sh", "-c", WAIT]);
    job.wait_for_log("ready");
    let command = ["sh", "-c", "tty; stty size; read x; stty size; echo err >&2; sleep 1000"];
    let mut shell = job.client.exec(command).terminal().spawn().await.unwrap();
    shell.set_size(100, 30);
    let (mut stdin, mut stdout) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
    let mut seen = String::new();
    // Send the size only after the shell has started, because the first size may arrive late.
    until(&mut stdout, &mut seen, "/dev/pts/").await;
    shell.set_size(132, 43);
    stdin.write_all(b"\n").await.unwrap();
    until(&mut stdout, &mut seen, "43 132").await;
    until(&mut stdout, &mut seen, "err").await;
    let mut stderr = Vec::new();
    shell.abort();
    assert_eq!(shell.wait().await, Err(ChildError::Aborted));
    let _ = shell.stderr.take().unwrap().read_to_end(&mut stderr).await;
    assert!(stderr.is_empty(), "with a terminal stderr only ends");
    job.client.exec(["touch", "/tmp/done"]).spawn().await.unwrap().wait().await.unwrap();
    job.finish().text(0);
}

async fn until(stdout: &mut metaservice::ChildOutput, seen: &mut String, text: &str) {
    while !seen.contains(text) {
        let mut buffer = [0; 1024];
        let count = stdout.read(&mut buffer).await.unwrap();
        assert!(count > 0, "the terminal ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

#[test]
fn kill_reaches_what_ignores_it_and_what_has_run_away() {
    let cli = Cli::new(METASERVICE);
    // The child leaves its session and its parent, and ignores SIGTERM. A lock shows when it ends;
    // the job's log shows when it has the lock.
    let script = "trap '' TERM; \
        (setsid sh -c 'trap \"\" TERM; exec 9> /tmp/lock; flock 9; echo ready; while :; do sleep 1; done' &) ; \
        while :; do sleep 1; done";
    let mut job = cli.start("stubborn", &["--artifact", "/tmp/free", "--", "sh", "-c", script]);
    job.wait_for_log("ready");
    // Wait for the lock outside the job's process tree.
    let watch = cli
        .command([
            "exec",
            "stubborn",
            "sh",
            "-c",
            "exec 9>> /tmp/lock; flock 9; echo free > /tmp/free",
        ])
        .spawn()
        .unwrap();
    cli.run(&["kill", "stubborn"]).text(0);
    finish(watch);
    let finished = job.finish();
    assert_eq!(finished.status, Some(137), "{}", finished.stderr);
    let free = std::fs::read_to_string(cli.work().join("free"));
    assert_eq!(free.unwrap(), "free\n", "the runaway child was alive when the job had ended");
}

#[test]
fn the_agent_may_die_and_the_command_runs_once() {
    let cli = Cli::new(METASERVICE);
    let script = format!("echo run >> /tmp/runs; {WAIT}; echo after; cat /tmp/runs");
    let mut job = cli.start("survivor", &["--", "sh", "-c", &script]);
    job.wait_for_log("ready");
    // Kill the agent: each process with its name that is neither the init nor a supervisor.
    let kill = "for p in /proc/[0-9]*; do set -- $(tr '\\0' ' ' < $p/cmdline); \
        case \"$*\" in *supervise*) ;; *' run') kill -9 ${p#/proc/} ;; esac; done; true";
    let _ = cli.run(&["exec", "survivor", "sh", "-c", kill]);
    cli.release("survivor");
    assert_eq!(job.finish().text(0), "\nafter\nrun\n");
}

#[test]
fn ctrl_c_ends_the_job_in_order_and_twice_at_once() {
    let cli = Cli::new(METASERVICE);
    let script = "trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 1; done";
    let mut job = cli.start("polite", &["--", "sh", "-c", script]);
    job.wait_for_log("ready");
    job.signal(Signal::INT);
    let finished = job.finish();
    assert_eq!(finished.status, Some(130), "{}", finished.stderr);
    // The shell may print a message about the sleep that it waited for.
    assert!(String::from_utf8_lossy(&finished.stdout).contains("told\n"), "{finished:?}");

    let mut job = cli.start("rude", &["--", "sh", "-c", "trap '' TERM; echo ready; sleep 1000"]);
    job.wait_for_log("ready");
    let begun = std::time::Instant::now();
    // Two signals of one kind can arrive as one.
    job.signal(Signal::TERM);
    job.signal(Signal::INT);
    let status = job.finish().status;
    assert!(matches!(status, Some(130 | 143)), "{status:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "the second signal waited");
}

#[test]
fn a_tool_that_is_killed_takes_its_machine_along() {
    let cli = Cli::new(METASERVICE);
    let mut job = cli.start("victim", &["--", "sh", "-c", WAIT]);
    job.wait_for_log("ready");
    job.signal(Signal::KILL);
    assert_eq!(job.finish().status, None);
    cli.wait_for_exits();
    // Its directory stays: the job is lost.
    assert_eq!(cli.run(&["ps"]).text(0).lines().count(), 1);
    assert!(cli.run(&["ps", "-a"]).text(0).contains("lost"));
    cli.run(&["rm", "victim"]).text(0);
}

#[test]
fn a_log_without_a_reader_ends_the_job() {
    let cli = Cli::new(METASERVICE);
    let mut job = cli.start("unread", &["--", "sh", "-c", "while :; do echo line; done"]);
    drop(job.child.stdout.take());
    job.child.stdout = None;
    let mut child = job.child;
    // The status of a process that SIGPIPE ends, without a message.
    assert_eq!(child.wait().unwrap().code(), Some(141));
    let said: Vec<String> = job.stderr.iter().collect();
    assert!(!said.iter().any(|line| line.contains("\"event\":\"error\"")), "{said:?}");
}

#[test]
fn a_job_without_a_reader_fetches_its_artifacts_and_keeps_its_failure() {
    let cli = Cli::new(METASERVICE);
    let run = |artifact: &[&str], script: &str| {
        let args = [&["run"], artifact, &["--", "sh", "-c", script]].concat();
        let mut child = cli.command(args).spawn().unwrap();
        // The machine has not booted yet, so nothing was written.
        drop(child.stdout.take());
        finish(child)
    };
    let fetched = run(&["--artifact", "/etc/hosts:hosts"], "while :; do echo line; done");
    assert_eq!(fetched.status, Some(141), "{}", fetched.stderr);
    assert!(cli.work().join("hosts").exists());
    assert!(!fetched.stderr.contains("log"), "{}", fetched.stderr);
    assert_eq!(run(&[], "exit 3").status, Some(3));
}

#[test]
fn a_file_that_reaches_the_limit_of_sizes_ends_the_job_in_order() {
    let cli = Cli::new(METASERVICE);
    // This fills the cache with the boot files, which could not be written within the limit.
    cli.run(&["run", "--", "true"]).text(0);
    let inner = cli.command::<&str>([]);
    let script = "ulimit -f 8; exec \"$0\" run --name limited -- seq 100000 >log";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).arg(inner.get_program()).current_dir(cli.work());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let finished = finish(command.spawn().unwrap());
    // The `Cli` checks that no socket is left.
    assert_eq!(finished.status, Some(125), "{}", finished.stderr);
    assert!(finished.stderr.contains("the log cannot be written"), "{}", finished.stderr);
}
