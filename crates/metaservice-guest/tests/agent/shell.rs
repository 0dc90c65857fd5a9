//! Shells, with and without a terminal.

use metaservice_testing::host::{Agent, Artifact, Host, make_fifo, shell_of};
use metaservice_testing::noise;
use metaservice_testing::processes::{exited, is_alive};
use metaservice_testing::wait::until;
use rustix::process::Signal;

use crate::AGENT;

async fn idle() -> (Host, Agent) {
    let host = Host::start_with(&["sleep", "1000"], &[("JOB", "env of the job")]).await;
    let agent = Agent::start(AGENT, &host).await;
    (host, agent)
}

#[tokio::test]
async fn five_megabytes_pass_through_a_shell_and_back() {
    let (host, agent) = idle().await;
    let mut shell = host.shell(&["cat"], false).await;
    let bytes = noise(5 * 1024 * 1024 + 7, 1);
    shell.write(&bytes).await;
    shell.end_input().await;
    assert_eq!(shell.finish().await, (Some(0), true));
    assert!(shell.stdout_bytes() == bytes);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_are_apart_and_the_status_arrives() {
    let (host, agent) = idle().await;
    let mut shell = host.shell(&["sh", "-c", "echo $JOB; echo err >&2; exit 1"], false).await;
    assert_eq!(shell.finish().await, (Some(1), true));
    assert_eq!((shell.stdout().as_str(), shell.stderr().as_str()), ("env of the job\n", "err\n"));
    for (script, status) in [("exit 0", 0), ("exit 42", 1), ("kill -9 $$", 1)] {
        let mut shell = host.shell(&["sh", "-c", script], false).await;
        assert_eq!(shell.finish().await, (Some(status), true), "{script}");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_that_cannot_be_started_says_why() {
    let (host, agent) = idle().await;
    let mut shell = host.shell(&["no-such-program"], false).await;
    assert_eq!(shell.finish().await, (Some(1), true));
    let why = "metaservice-guest: cannot run 'no-such-program': No such file or directory\n";
    assert_eq!(shell.stderr(), why);
    let mut shell = host.shell(&["echo", "a\0b"], false).await;
    assert_eq!(shell.finish().await, (Some(1), true));
    assert!(shell.stderr().contains("cannot run 'echo"), "{}", shell.stderr());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_may_be_as_long_as_the_kernel_takes_it() {
    let (host, agent) = idle().await;
    // 128 KiB with the final zero, and nearly 2 MiB in total.
    let (longest, long) = ("x".repeat(128 * 1024 - 1), "y".repeat(124 * 1024));
    let script = "echo $# ${#1} ${#2}";
    let mut command = vec!["sh", "-c", script, "sh", longest.as_str()];
    command.extend(std::iter::repeat_n(long.as_str(), 14));
    let mut shell = host.shell(&command, false).await;
    assert_eq!(shell.finish().await, (Some(0), true), "{}", shell.stderr());
    assert_eq!(shell.stdout(), format!("15 {} {}\n", longest.len(), long.len()));
    let too_long = format!("{longest}x");
    let mut shell = host.shell(&["sh", "-c", script, "sh", &too_long], false).await;
    assert_eq!(shell.finish().await, (Some(1), true));
    let why = shell.stderr();
    assert!(why.contains("Argument list too long") && why.len() < 300, "{why}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_shell_reads_commands() {
    let (host, agent) = idle().await;
    let mut shell = host.shell(&[], false).await;
    shell.write(b"echo $((6 * 7))\nexit 0\n").await;
    assert_eq!(shell.finish().await, (Some(0), true));
    assert_eq!(shell.stdout(), "42\n");
    agent.stop().await;
}

#[tokio::test]
async fn a_reply_is_repeated_for_as_long_as_the_host_waits() {
    let (host, agent) = idle().await;
    host.cut_replies(12);
    let mut shell = host.shell(&["sh", "-c", "echo late"], false).await;
    assert_eq!(shell.finish().await, (Some(0), true));
    assert_eq!(shell.stdout(), "late\n");
    host.cut_replies(12);
    assert!(matches!(host.artifact("/etc/hostname").await, Artifact::File { .. }));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_has_a_size_that_follows() {
    let (host, agent) = idle().await;
    let mut shell =
        host.shell(&["sh", "-c", "stty size; echo to-err >&2; read x; stty size; tty"], true).await;
    shell.says("24 80").await;
    shell.says("to-err").await;
    shell.resize(132, 43).await;
    shell.write(b"\n").await;
    shell.says("43 132").await;
    assert_eq!(shell.finish().await, (Some(0), true));
    assert!(shell.stdout().contains("/dev/pts/"), "{}", shell.stdout());
    assert_eq!(shell.stderr(), "");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_interrupts_and_ends_its_input() {
    let (host, agent) = idle().await;
    let mut shell = host
        .shell(&["sh", "-c", "trap 'echo caught' INT; echo ready; sleep 1000; cat"], true)
        .await;
    shell.says("ready").await;
    shell.write(&[3]).await;
    shell.says("caught").await;
    shell.write(b"line\n").await;
    shell.says("line\r\nline\r\n").await;
    shell.end_input().await;
    assert_eq!(shell.finish().await, (Some(0), true));
    agent.stop().await;
}

#[tokio::test]
async fn background_processes_may_continue_to_write() {
    let (host, agent) = idle().await;
    let directory = tempfile::tempdir().expect("a directory");
    let [go, done] = ["go", "done"].map(|name| directory.path().join(name));
    make_fifo(&go);
    make_fifo(&done);
    // More than a pipe holds, so the agent must read it. A closed pipe would kill `yes`.
    let script = "(cd \"$0\"; sh -c 'read line < go; yes | head -c 1000000; echo late >&2'; \
                  echo $? > done) & echo left";
    let path = directory.path().display().to_string();
    // The first shell starts the fork server.
    assert_eq!(host.shell(&["true"], false).await.finish().await, (Some(0), true));
    let open = || std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("an agent").count();
    let before = open();
    let mut shell = host.shell(&["sh", "-c", script, &path], false).await;
    assert_eq!(shell.finish().await, (Some(0), true));
    assert_eq!(shell.stdout(), "left\n");
    std::fs::write(&go, "go\n").expect("a reader");
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(done));
    assert_eq!(read.await.expect("no panic").expect("a FIFO"), "0\n");
    // At the end of the process, the agent closes the descriptors of its outputs.
    until("the descriptors are closed", || open() <= before);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_whose_supervisor_was_killed_is_lost() {
    let (host, agent) = idle().await;
    let mut shell = host.shell(&["sh", "-c", "echo $PPID; cat"], false).await;
    shell.says("\n").await;
    signal(shell.stdout().trim(), Signal::KILL);
    assert_eq!(shell.finish().await, (Some(1), true), "version 1 knows failure alone");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_kills_the_whole_tree() {
    let (host, agent) = idle().await;
    let script = "trap '' TERM HUP; setsid sh -c 'trap \"\" TERM HUP; echo $$; while :; do sleep 1000; done' & sleep 0.2; echo ready; while :; do sleep 1000; done";
    for tty in [false, true] {
        let mut shell = host.shell(&["sh", "-c", script], tty).await;
        shell.says("ready").await;
        let pid = shell.stdout().lines().next().unwrap().trim().to_owned();
        assert!(is_alive(&pid), "{pid}");
        shell.abort().await;
        let (_, closed) = shell.finish().await;
        assert!(closed);
        exited(&pid).await;
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_broken_connection_kills_the_shell() {
    let (host, agent) = idle().await;
    let mut shell = host.shell(&["sh", "-c", "echo $$; sleep 1000"], false).await;
    shell.says("\n").await;
    let pid = shell.stdout();
    assert!(is_alive(&pid));
    drop(shell);
    exited(&pid).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shells_die_with_their_agent() {
    let (host, mut agent) = idle().await;
    let mut shell = host.shell(&["sh", "-c", "setsid sleep 1000 & echo $! $$; wait"], true).await;
    shell.says("\n").await;
    let pids: Vec<String> = shell.stdout().split_whitespace().map(Into::into).collect();
    agent.crash().await;
    for pid in &pids {
        exited(pid).await;
    }
    agent.restart(&[]);
    host.fetched(2).await;
    assert_eq!(host.artifact("/nowhere").await, Artifact::NotFound);
    agent.stop().await;
}

#[tokio::test]
async fn background_processes_do_not_delay_the_exit() {
    let (host, agent) = idle().await;
    let mut shell = host.shell(&["sh", "-c", "sleep 1000 & echo $!"], false).await;
    assert_eq!(shell.finish().await, (Some(0), true));
    let pid = shell.stdout();
    // The background process still runs.
    assert!(is_alive(&pid));
    signal(pid.trim(), Signal::KILL);
    agent.stop().await;
}

#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    let (host, agent) = idle().await;
    let mut shell = host.shell(&["head", "-c", "1000000", "/dev/zero"], false).await;
    shell.reads = false;
    shell.has(64 * 1024).await;
    shell.assert_quiet().await;
    shell.reads = true;
    shell.catch_up().await;
    assert_eq!(shell.finish().await, (Some(0), true));
    assert_eq!(shell.stdout_bytes().len(), 1_000_000);
    agent.stop().await;
}

#[tokio::test]
async fn input_that_is_not_read_does_not_block_the_output() {
    let (host, agent) = idle().await;
    let script = "echo ready; read x < \"$0\"; head -c 300000 /dev/zero";
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    make_fifo(&gate);
    let mut shell = host.shell(&["sh", "-c", script, gate.to_str().unwrap()], false).await;
    shell.says("ready").await;
    // More than the pipe takes, less than the pipe and the window.
    shell.write(&vec![1; 120_000]).await;
    tokio::fs::write(&gate, "x\n").await.unwrap();
    assert_eq!(shell.finish().await, (Some(0), true));
    assert_eq!(shell.stdout_bytes().len(), "ready\n".len() + 300_000);

    // Input for a command that has closed its input is acknowledged and discarded.
    let mut shell = host.shell(&["sh", "-c", "exec <&-; echo shut; sleep 1"], false).await;
    shell.says("shut").await;
    shell.write(&vec![1; 300_000]).await;
    assert_eq!(shell.finish().await, (Some(0), true));
    agent.stop().await;
}

#[tokio::test]
async fn unknown_messages_are_ignored() {
    let (host, agent) = idle().await;
    let mut shell = host.shell(&["cat"], false).await;
    shell.send_nonsense().await;
    shell.write(b"still here").await;
    shell.end_input().await;
    assert_eq!(shell.finish().await, (Some(0), true));
    assert_eq!(shell.stdout(), "still here");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_shells_run_at_once() {
    let (host, agent) = idle().await;
    let mut shells = Vec::new();
    for _ in 0..20 {
        shells.push(host.shell(&["cat"], false).await);
    }
    for (n, shell) in shells.iter_mut().enumerate() {
        shell.write(format!("shell {n}").as_bytes()).await;
        shell.end_input().await;
    }
    for (n, shell) in shells.iter_mut().enumerate() {
        assert_eq!(shell.finish().await, (Some(0), true));
        assert_eq!(shell.stdout(), format!("shell {n}"));
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn supervisors_are_forked_by_a_server_and_do_without_it() {
    let (host, agent) = idle().await;
    let own = agent.pid().to_string();
    let says_parent = ["sh", "-c", "echo $PPID; cat; echo ${#0}"];
    let begin = async |more: &[&str]| {
        let mut shell = host.shell(&[&says_parent[..], more].concat(), false).await;
        shell.says("\n").await;
        let started_by = parent(shell.stdout().trim());
        (shell, started_by)
    };
    let (mut first, server) = begin(&[]).await;
    assert_eq!(parent(&server), own, "its parent is the agent");
    let (mut second, same) = begin(&[]).await;
    assert_eq!(same, server);

    // An order that is too long for a message is started as a program.
    let long = "x".repeat(100_000);
    let (mut third, started_by) = begin(&[&long]).await;
    assert_eq!(started_by, own);

    // At its end its shells end, as at the agent's end. New shells still start.
    signal(&server, Signal::KILL);
    assert_eq!(first.finish().await, (Some(1), true));
    assert_eq!(second.finish().await, (Some(1), true));
    let (mut fourth, started_by) = begin(&[]).await;
    assert_eq!(started_by, own);
    let (mut fifth, other) = begin(&[]).await;
    assert_eq!(parent(&other), own);
    assert_ne!(other, server);

    // A server that does not answer is not used again. Its shells run on. The order that it got
    // while it was stopped is not carried out later.
    signal(&other, Signal::STOP);
    let (mut sixth, started_by) = begin(&[]).await;
    assert_eq!(started_by, own);
    signal(&other, Signal::CONT);
    let (mut seventh, started_by) = begin(&[]).await;
    assert_eq!(started_by, own);
    for shell in [&mut third, &mut fourth, &mut fifth, &mut sixth, &mut seventh] {
        shell.end_input().await;
        assert_eq!(shell.finish().await, (Some(0), true));
    }
    assert!(third.stdout().ends_with("\n100000\n"), "{}", third.stdout());
    agent.stop().await;
}

#[tokio::test]
async fn a_command_without_a_connection_is_not_started() {
    let (host, agent) = idle().await;
    let mut shell = host.shell(&["true"], false).await;
    assert_eq!(shell.finish().await, (Some(0), true));
    let directory = tempfile::tempdir().expect("a directory");
    let touched = directory.path().join("touched");
    // The host rejects their connections. Some supervisors are forked by then.
    for number in 0..10 {
        let polls = host.polls();
        let command = ["touch", touched.to_str().expect("a path")];
        host.push(&format!("unconnected-{number}"), "exec-shell", "", Some(&command), false);
        host.polled(polls).await;
    }
    // After them a shell with a connection. Then four processes are left: the agent, the job, its
    // supervisor and the fork server.
    let mut shell = host.shell(&["true"], false).await;
    assert_eq!(shell.finish().await, (Some(0), true));
    until("4 processes are left", || agent.processes().len() == 4);
    assert!(!touched.exists(), "it was started");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_once_though_the_fork_server_ends_before_it() {
    let (host, agent) = idle().await;
    let directory = tempfile::tempdir().expect("a directory");
    let lines = directory.path().join("lines");
    let append = format!("echo $PPID >> {0}; cat {0}; cat", lines.display());
    let command = ["sh", "-c", &append];
    let mut shell = host.shell(&command, false).await;
    shell.says("\n").await;
    let first = shell.stdout().trim().to_owned();
    let server = parent(&first);
    shell.end_input().await;
    assert_eq!(shell.finish().await, (Some(0), true));

    let held = host.hold_shells();
    let next = host.expect("next");
    host.push("next", "exec-shell", "", Some(&command), false);
    held.reached().await;
    // The agent, the job, its supervisor, the fork server, and the supervisor that waits.
    until("5 processes are left", || agent.processes().len() == 5);
    signal(&server, Signal::KILL);
    until("3 processes are left", || agent.processes().len() == 3);
    drop(held);
    let mut shell = shell_of(next).await;
    shell.says("\n").await;
    shell.end_input().await;
    assert_eq!(shell.finish().await, (Some(0), true));
    let ran = std::fs::read_to_string(&lines).expect("what has run");
    let [before, after] = ran.lines().collect::<Vec<_>>()[..] else { panic!("it ran: {ran}") };
    assert_eq!(before, first);
    assert_eq!(shell.stdout(), format!("{before}\n{after}\n"));
    agent.stop().await;
}

#[tokio::test]
async fn many_waiting_shells_do_not_disturb_the_agent() {
    let (host, agent) = idle().await;
    let held = host.hold_shells();
    let shells: Vec<_> = (0..200).map(|number| format!("held-{number}")).collect();
    let waiting: Vec<_> = shells.iter().map(|id| host.expect(id)).collect();
    for id in &shells {
        host.push(id, "exec-shell", "", Some(&["true"]), false);
    }
    for _ in &shells {
        held.reached().await;
    }
    // Most processes may have a thousand descriptors.
    let open = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("an agent").count();
    assert!(open < 200 + 32 * 8 + 50, "{open} descriptors");
    assert_eq!(host.list("/no/such/directory").await, (None, true));
    drop(held);
    for shell in waiting {
        assert_eq!(shell_of(shell).await.finish().await, (Some(0), true));
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fork_server_keeps_nothing_of_an_order() {
    let (host, agent) = idle().await;
    let secret = "x7Gq".repeat(16);
    let command = ["sh", "-c", "echo $PPID $PPID; cat", &secret];
    let mut shell = host.shell(&command, false).await;
    shell.says("\n").await;
    let supervisor = shell.stdout().split(' ').next().expect("a number").to_owned();
    let server = parent(&supervisor);
    assert_ne!(server, agent.pid().to_string());
    // A part of it, because freed memory is overwritten in part.
    assert!(holds(&supervisor, &secret[..32]), "the copy has what it was ordered");
    // It clears the order while its child already works.
    until("the fork server has cleared the command", || !holds(&server, &secret[..32]));
    shell.end_input().await;
    assert_eq!(shell.finish().await, (Some(0), true));
    agent.stop().await;
}

/// Whether a text is anywhere in the writable memory of a process.
fn holds(pid: &str, words: &str) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("a process");
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("its memory");
    let writable = maps.lines().filter(|line| line.contains(" rw"));
    writable.into_iter().any(|line| {
        let (from, to) =
            line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let [from, to] =
            [from, to].map(|address| u64::from_str_radix(address, 16).expect("a number"));
        let mut bytes = vec![0; usize::try_from(to - from).expect("a size")];
        let read = std::os::unix::fs::FileExt::read_at(&memory, &mut bytes, from).unwrap_or(0);
        bytes[..read].windows(words.len()).any(|part| part == words.as_bytes())
    })
}

/// The process id of the parent of a process.
fn parent(pid: &str) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    fields.split_ascii_whitespace().nth(1).expect("a parent").to_owned()
}

fn signal(pid: &str, signal: Signal) {
    let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a number");
    rustix::process::kill_process(pid, signal).expect("a process");
}
