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

/// The score of a process, by which the kernel chooses whom to kill for lack of memory.
fn oom_score(pid: &str) -> String {
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
    score.unwrap_or_default().trim().to_owned()
}

#[tokio::test]
async fn a_command_is_killed_for_lack_of_memory_before_what_reports_it() {
    let script = "echo $PPID; cat /proc/self/oom_score_adj; sleep 1000";
    let host = Host::start(&["sh", "-c", script]).await;
    let agent = Agent::start(AGENT, &host).await;
    let own = oom_score("self");
    host.log_says(&format!("\n{own}\n")).await;
    let supervisor = host.log_text().lines().next().expect("a line").to_owned();
    // Who may not lower its score has none that is protected.
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
async fn what_a_service_manager_tells_the_agent_is_not_the_commands() {
    let env = [("INVOCATION_ID", "the agent's"), ("JOURNAL_STREAM", "8:1"), ("OWN", "image")];
    let job = [("INVOCATION_ID", "the job's")];
    let script = "echo \"$INVOCATION_ID,$JOURNAL_STREAM,$SYSTEMD_EXEC_PID,$OWN\"";
    let idle = format!("{script}; sleep 1000");
    let host = Host::start_with(&["sh", "-c", &idle], &job).await;
    let options = [env.as_slice(), &[("SYSTEMD_EXEC_PID", "1")]].concat();
    let agent = Agent::start_with(AGENT, &host, &[], &options).await;
    host.log_says("the job's,,,image\n").await;
    // The first shell starts the process that its supervisor, and that of the next, is a copy of.
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
async fn a_null_command_is_an_empty_one_and_an_entrypoint_makes_it_whole() {
    let host = Host::start(&[]).await;
    host.set_execute(r#"{"env":{},"command":null}"#);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yml");
    std::fs::write(&config, "entrypoint: [echo, entered]").unwrap();
    let agent = Agent::start_with(AGENT, &host, &["--config", config.to_str().unwrap()], &[]).await;
    assert!(host.result().await.0);
    assert_eq!(host.log_text(), "entered\n");
    agent.stop().await;
}

#[tokio::test]
async fn the_environment_is_laid_in_order_and_workdir_and_input_are_set() {
    let script = "echo $A $B $C; pwd; cat; ps -o sid= -p $$ | grep -q $$ && echo session";
    let host = Host::start_with(&["sh", "-c", script], &[("C", "job")]).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yml");
    let text = format!("env: {{B: config, C: config}}\nworkdir: {}\n", folder.path().display());
    std::fs::write(&config, text).unwrap();
    let env = [("A", "agent"), ("B", "agent"), ("C", "agent")];
    let agent =
        Agent::start_with(AGENT, &host, &["--config", config.to_str().unwrap()], &env).await;
    assert!(host.result().await.0);
    let expected = format!("agent config job\n{}\nsession\n", folder.path().display());
    assert_eq!(host.log_text(), expected);
    agent.stop().await;
}

#[tokio::test]
async fn a_command_runs_as_the_configured_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yml");
    std::fs::write(&config, "user: nobody\nworkdir: /\n").unwrap();
    let host =
        Host::start(&["sh", "-c", "id -un; id -gn; echo $USER; echo again > /dev/stderr"]).await;
    let agent = Agent::start_with(AGENT, &host, &["--config", config.to_str().unwrap()], &[]).await;
    host.result().await;
    assert_eq!(host.log_text(), "nobody\nnogroup\nnobody\nagain\n");
    agent.stop().await;

    std::fs::write(&config, "user: nobody-at-all\n").unwrap();
    let host = Host::start(&["true"]).await;
    let agent = Agent::start_with(AGENT, &host, &["--config", config.to_str().unwrap()], &[]).await;
    assert!(!host.result().await.0);
    assert!(host.log_text().contains("there is no user 'nobody-at-all'"), "{}", host.log_text());
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
    // A generator that cannot be mistaken for anything else: AES of nothing.
    let script = "head -c 50000000 /dev/zero | openssl enc -aes-128-ctr -K 00 -iv 00 2>/dev/null | tee \"$COPY\"";
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
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
async fn a_kill_takes_a_daemon_and_who_ignores_it() {
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
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(8), "{took:?}");
    assert!(!pids.iter().any(|pid| is_alive(pid)));
    agent.stop().await;
}

#[tokio::test]
async fn a_kill_of_a_tame_command_is_quick() {
    let host = Host::start(&["sh", "-c", "echo ready; sleep 1000"]).await;
    let agent = Agent::start(AGENT, &host).await;
    host.log_says("ready").await;
    let begun = Instant::now();
    host.kill().await;
    let (_, header) = host.result().await;
    assert_eq!(ending(header)["signal"], 15);
    assert!(begun.elapsed() < Duration::from_secs(2));
    // There is nothing left to kill; the host is answered all the same.
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

/// Twenty processes that each fork a successor and end at once, so that whoever was seen a
/// moment ago is gone. They never become more (a bomb that grows would take the machine along
/// if the kill failed), and give up by themselves after 20 s.
#[tokio::test]
async fn processes_that_hop_away_are_caught() {
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
async fn a_job_ends_with_its_command_and_takes_its_background_along() {
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
async fn a_refused_log_is_dropped_and_the_result_reported_all_the_same() {
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
    let folder = tempfile::tempdir().unwrap();
    // A gate for each time: the second reader of one could still meet its first writer.
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
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
    // What is written into a connection that is just dying would be lost in version 1.
    host.log_requested(2).await;
    tokio::fs::write(&second, "x\n").await.unwrap();
    assert!(host.result().await.0);
    assert_eq!(host.log_text(), "one\ntwo\nthree\n");
    assert_eq!(host.log_requests(), 2);
    agent.stop().await;
}

#[tokio::test]
async fn the_agent_waits_for_a_service_that_is_not_there_yet() {
    let late = Host::start(&["echo", "late"]).await;
    // A port where nobody listens, and where somebody will.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut absent = late.clone();
    absent.address = socket.local_addr().unwrap();
    let agent = Agent::start(AGENT, &absent).await;
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
