//! The job: started, followed, reported, killed.

use std::time::{Duration, Instant};

use metaservice_testing::host::{Agent, Host, make_fifo};
use metaservice_testing::processes::is_alive;
use serde_json::Value;

use crate::AGENT;

fn ending(header: Option<String>) -> Value {
    serde_json::from_str(&header.expect("the header of our extension")).unwrap()
}

#[tokio::test]
async fn a_command_runs_and_its_output_and_success_arrive() {
    let host = Host::start(&["sh", "-c", "echo out; echo err >&2; echo out"]).await;
    let agent = Agent::start(AGENT, &host).await;
    let (success, header) = host.result().await;
    assert!(success);
    let ending = ending(header);
    assert_eq!((&ending["reason"], &ending["exitCode"]), (&"exited".into(), &0.into()));
    assert_eq!(host.log_text(), "out\nerr\nout\n");
    assert_eq!(host.log_requests(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_failure_is_reported_with_its_status() {
    let host = Host::start(&["sh", "-c", "exit 3"]).await;
    let agent = Agent::start(AGENT, &host).await;
    let (success, header) = host.result().await;
    assert!(!success);
    assert_eq!(ending(header)["exitCode"], 3);
    assert_eq!(host.log_requests(), 1, "an empty log is sent all the same");
    agent.stop().await;

    let host = Host::start(&["sh", "-c", "kill -SEGV $$"]).await;
    let agent = Agent::start(AGENT, &host).await;
    let (success, header) = host.result().await;
    let ending = ending(header);
    assert_eq!(
        (success, &ending["reason"], &ending["signal"]),
        (false, &"signaled".into(), &11.into())
    );
    agent.stop().await;
}

/// The score by which the kernel chooses a process to kill for lack of memory.
fn oom_score(pid: &str) -> String {
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
    score.unwrap_or_default().trim().to_owned()
}

#[tokio::test]
async fn a_command_is_killed_for_lack_of_memory_before_the_agent() {
    let script = "echo $PPID; cat /proc/self/oom_score_adj; sleep 1000";
    let host = Host::start(&["sh", "-c", script]).await;
    let agent = Agent::start(AGENT, &host).await;
    let own = oom_score("self");
    host.log_says(&format!("\n{own}\n")).await;
    let supervisor = host.log_text().lines().next().expect("a line").to_owned();
    // An unprivileged agent cannot lower its score.
    let may = std::fs::write("/proc/self/oom_score_adj", "-1000").is_ok();
    std::fs::write("/proc/self/oom_score_adj", &own).expect("what it was");
    let wanted = if may { "-1000" } else { &own };
    assert_eq!(oom_score(&agent.pid().to_string()), wanted);
    assert_eq!(oom_score(&supervisor), wanted);
    let mut shell = host.shell(&["sh", "-c", "cat /proc/self/oom_score_adj; cat"], false).await;
    shell.says(&format!("{own}\n")).await;
    shell.end_input().await;
    shell.finish().await;
    agent.stop().await;
}

#[tokio::test]
async fn a_command_does_not_get_the_variables_of_the_agents_unit() {
    let env = [("INVOCATION_ID", "the agent's"), ("JOURNAL_STREAM", "8:1"), ("OWN", "image")];
    let job = [("INVOCATION_ID", "the job's")];
    let script = "echo \"$INVOCATION_ID,$JOURNAL_STREAM,$SYSTEMD_EXEC_PID,$OWN\"";
    let idle = format!("{script}; sleep 1000");
    let host = Host::start_with(&["sh", "-c", &idle], &job).await;
    let options = [env.as_slice(), &[("SYSTEMD_EXEC_PID", "1")]].concat();
    let agent = Agent::start_with(AGENT, &host, &[], &options).await;
    host.log_says("the job's,,,image\n").await;
    // The first shell starts the fork server, which forks the supervisor of the next.
    for _ in 0..2 {
        let mut shell = host.shell(&["sh", "-c", script], false).await;
        shell.finish().await;
        assert_eq!(shell.stdout(), "the job's,,,image\n");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_command_that_cannot_be_started_says_why_in_the_log() {
    let long = "x".repeat(200_000);
    for (command, reason, text) in [
        (
            &["no-such-program", "x"][..],
            "not-found",
            "metaservice-guest: cannot run 'no-such-program': No such file or directory\n",
        ),
        (
            &["/etc/passwd"],
            "not-executable",
            "metaservice-guest: cannot run '/etc/passwd': Permission denied\n",
        ),
        (&["/tmp"], "not-executable", "metaservice-guest: cannot run '/tmp': Permission denied\n"),
        (&[], "not-found", "metaservice-guest: there is no command to run\n"),
        (&["echo", "a\0b"], "not-executable", "metaservice-guest: cannot run 'echo': "),
        (
            &["echo", &long],
            "not-executable",
            "metaservice-guest: cannot run 'echo': Argument list too long\n",
        ),
    ] {
        let host = Host::start(command).await;
        let agent = Agent::start(AGENT, &host).await;
        let (success, header) = host.result().await;
        assert!(!success);
        assert_eq!(ending(header)["reason"], reason, "{text}");
        assert!(host.log_text().starts_with(text), "{:?}", host.log_text());
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_null_command_is_empty_and_an_entrypoint_replaces_it() {
    let host = Host::start(&[]).await;
    host.set_execute(r#"{"env":{},"command":null}"#);
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("c.yml");
    std::fs::write(&config, "entrypoint: [echo, entered]").unwrap();
    let agent = Agent::start_with(AGENT, &host, &["--config", config.to_str().unwrap()], &[]).await;
    assert!(host.result().await.0);
    assert_eq!(host.log_text(), "entered\n");
    agent.stop().await;
}

#[tokio::test]
async fn the_environment_has_its_order_and_workdir_and_input_are_set() {
    let script = "echo $A $B $C; pwd; cat; ps -o sid= -p $$ | grep -q $$ && echo session";
    let host = Host::start_with(&["sh", "-c", script], &[("C", "job")]).await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("c.yml");
    let text = format!("env: {{B: config, C: config}}\nworkdir: {}\n", directory.path().display());
    std::fs::write(&config, text).unwrap();
    let env = [("A", "agent"), ("B", "agent"), ("C", "agent")];
    let agent =
        Agent::start_with(AGENT, &host, &["--config", config.to_str().unwrap()], &env).await;
    assert!(host.result().await.0);
    let expected = format!("agent config job\n{}\nsession\n", directory.path().display());
    assert_eq!(host.log_text(), expected);
    agent.stop().await;
}

#[tokio::test]
async fn a_command_runs_as_the_configured_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("c.yml");
    std::fs::write(&config, "user: daemon\nworkdir: /\n").unwrap();
    let host =
        Host::start(&["sh", "-c", "id -un; id -gn; echo $USER; echo again > /dev/stderr"]).await;
    let agent = Agent::start_with(AGENT, &host, &["--config", config.to_str().unwrap()], &[]).await;
    host.result().await;
    assert_eq!(host.log_text(), "daemon\ndaemon\ndaemon\nagain\n");
    agent.stop().await;

    std::fs::write(&config, "user: no-such-user\n").unwrap();
    let host = Host::start(&["true"]).await;
    let agent = Agent::start_with(AGENT, &host, &["--config", config.to_str().unwrap()], &[]).await;
    assert!(!host.result().await.0);
    assert!(host.log_text().contains("there is no user 'no-such-user'"), "{}", host.log_text());
    agent.stop().await;
}

#[tokio::test]
async fn output_is_live() {
    let host = Host::start(&["sh", "-c", "printf first; exec sleep 1000"]).await;
    let agent = Agent::start(AGENT, &host).await;
    host.log_says("first").await;
    assert!(!host.has_result());
    agent.stop().await;
}

#[tokio::test]
async fn fifty_megabytes_of_binary_output_arrive_exactly() {
    // Pseudo-random bytes: AES of zeros.
    let script = "head -c 50000000 /dev/zero | openssl enc -aes-128-ctr -K 00 -iv 00 2>/dev/null | tee \"$COPY\"";
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy");
    let host = Host::start_with(&["sh", "-c", script], &[("COPY", copy.to_str().unwrap())]).await;
    let agent = Agent::start(AGENT, &host).await;
    assert!(host.result().await.0);
    let copy = std::fs::read(&copy).unwrap();
    assert_eq!(copy.len(), 50_000_000);
    assert!(host.log() == copy);
    assert_eq!(host.log_requests(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_kill_ends_daemons_and_processes_that_ignore_it() {
    let script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; (sleep 1000 & echo $! >&2; wait) & echo $$ >&2; wait' & \
                  sleep 1 & wait $!; echo ready; while :; do sleep 1000; done";
    let host = Host::start(&["sh", "-c", script]).await;
    let agent = Agent::start(AGENT, &host).await;
    host.log_says("ready").await;
    let pids: Vec<String> =
        host.log_text().lines().filter(|l| *l != "ready").map(Into::into).collect();
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|pid| is_alive(pid)));
    let begun = Instant::now();
    host.kill().await;
    let (success, header) = host.result().await;
    assert!(!success);
    let ending = ending(header);
    assert_eq!((&ending["reason"], &ending["signal"]), (&"killed".into(), &9.into()));
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(5), "the grace period was only {took:?}");
    assert!(!pids.iter().any(|pid| is_alive(pid)));
    agent.stop().await;
}

#[tokio::test]
async fn a_kill_of_a_command_that_obeys_sends_only_sigterm() {
    let host = Host::start(&["sh", "-c", "echo ready; sleep 1000"]).await;
    let agent = Agent::start(AGENT, &host).await;
    host.log_says("ready").await;
    host.kill().await;
    let (_, header) = host.result().await;
    assert_eq!(ending(header)["signal"], 15);
    // The command has ended already, and the host still gets a reply.
    host.kill().await;
    agent.stop().await;
}

#[tokio::test]
async fn what_a_trap_starts_is_not_killed() {
    let script = "trap 'sleep 1; sh -c \"sleep 1; echo tidy\"; exit 3' TERM; echo ready; \
        while :; do sleep 1000 & wait; done";
    let host = Host::start(&["bash", "-c", script]).await;
    let agent = Agent::start(AGENT, &host).await;
    host.log_says("ready").await;
    host.kill().await;
    let (_, header) = host.result().await;
    assert_eq!(ending(header)["reason"], "killed");
    host.log_says("tidy").await;
    agent.stop().await;
}

/// Twenty processes that each fork a successor and end at once, so that a process that was just
/// found is gone. Their number does not grow: a growing fork bomb would take the machine down if
/// the kill failed. They end by themselves after 20 s.
#[tokio::test]
async fn processes_that_fork_and_end_at_once_are_killed() {
    let script = "trap '' TERM; printf -v end '%(%s)T'; end=$((end + 20)); \
        hop() { printf -v now '%(%s)T'; ((now < end)) && hop & }; \
        for n in {1..20}; do hop; done; echo ready; read -t 25 < <(:) || exec sleep 25";
    let host = Host::start(&["bash", "-c", script]).await;
    let agent = Agent::start(AGENT, &host).await;
    host.log_says("ready").await;
    host.kill().await;
    assert!(!host.result().await.0);
    agent.assert_no_job_left();
    agent.stop().await;
}

#[tokio::test]
async fn a_job_ends_with_its_command_and_its_background_is_killed() {
    let host = Host::start(&["sh", "-c", "setsid sleep 1000 & echo $!; exit 0"]).await;
    let agent = Agent::start(AGENT, &host).await;
    assert!(host.result().await.0);
    assert!(!is_alive(&host.log_text()));
    agent.stop().await;
}

#[tokio::test]
async fn stopping_the_agent_kills_its_job() {
    let host = Host::start(&["sh", "-c", "echo $$; sleep 1000"]).await;
    let agent = Agent::start(AGENT, &host).await;
    host.log_says("\n").await;
    let pid = host.log_text();
    assert!(is_alive(&pid));
    agent.stop().await;
    assert!(!is_alive(&pid));
    assert!(!host.has_result());
}

#[tokio::test]
async fn a_rejected_log_is_discarded_and_the_result_is_reported() {
    let host = Host::start(&["sh", "-c", "head -c 5000000 /dev/zero; exit 4"]).await;
    host.refuse_log(500);
    let agent = Agent::start(AGENT, &host).await;
    let (success, header) = host.result().await;
    assert_eq!((success, &ending(header)["exitCode"]), (false, &4.into()));
    assert_eq!(host.log_requests(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_cut_log_connection_is_replaced() {
    let host = Host::start(&[
        "sh",
        "-c",
        "echo one; read x < \"$FIRST\"; echo two; read x < \"$SECOND\"; echo three",
    ])
    .await;
    let directory = tempfile::tempdir().unwrap();
    // Two gates: with one, the second reader could still meet the first writer.
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    make_fifo(&first);
    make_fifo(&second);
    host.cut_log_after("one\ntwo\n".len());
    let agent = Agent::start_with(
        AGENT,
        &host,
        &[],
        &[("FIRST", first.to_str().unwrap()), ("SECOND", second.to_str().unwrap())],
    )
    .await;
    host.log_says("one\n").await;
    tokio::fs::write(&first, "x\n").await.unwrap();
    host.log_says("two\n").await;
    // Version 1 loses bytes that a dying connection has taken.
    host.log_requested(2).await;
    tokio::fs::write(&second, "x\n").await.unwrap();
    assert!(host.result().await.0);
    assert_eq!(host.log_text(), "one\ntwo\nthree\n");
    assert_eq!(host.log_requests(), 2);
    agent.stop().await;
}

#[tokio::test]
async fn the_agent_waits_for_a_service_that_starts_later() {
    let late = Host::start(&["echo", "late"]).await;
    // A port without a listener, which gets one later.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut absent = late.clone();
    absent.address = socket.local_addr().unwrap();
    let agent = Agent::start(AGENT, &absent).await;
    // A refused connection is no event here. The pause lets the agent try; the test does not
    // depend on it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let listener = socket.listen(16).unwrap();
    let target = late.address;
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut outer = tokio::net::TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
            });
        }
    });
    assert!(late.result().await.0);
    assert_eq!(late.log_text(), "late\n");
    agent.stop().await;
}
