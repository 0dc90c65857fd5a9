//! An agent that dies and is started again.

use metaservice_testing::host::{Agent, Host, make_fifo};
use metaservice_testing::wait::for_file;
use std::path::PathBuf;

use crate::AGENT;

/// A job that counts its runs, prints "begun", waits for a line in a FIFO, and exits with 5.
struct Gated {
    directory: tempfile::TempDir,
    host: Host,
}

impl Gated {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let gate = directory.path().join("gate");
        make_fifo(&gate);
        let script = "echo run >> count; echo begun; read line < gate; echo $line; exit 5";
        let line = format!("cd {}; {script}", directory.path().display());
        let host = Host::start(&["sh", "-c", &line]).await;
        Self { directory, host }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn open(&self, line: &str) {
        tokio::fs::write(self.path("gate"), format!("{line}\n")).await.unwrap();
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(self.path("count")).unwrap().lines().count()
    }
}

#[tokio::test]
async fn a_command_outlives_its_agent_and_is_not_run_again() {
    let job = Gated::new().await;
    let mut agent = Agent::start(AGENT, &job.host).await;
    job.host.log_says("begun").await;
    agent.crash().await;
    agent.restart(&[]);
    job.host.fetched(2).await;
    job.open("opened").await;
    let (success, header) = job.host.result().await;
    assert!(!success && header.unwrap().contains(r#""exitCode":5"#));
    assert_eq!(job.host.log_text(), "begun\nopened\n");
    assert_eq!(job.runs(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn output_while_there_is_no_agent_is_kept() {
    let job = Gated::new().await;
    let mut agent = Agent::start(AGENT, &job.host).await;
    job.host.log_says("begun").await;
    agent.crash().await;
    // The command prints its last line and ends while there is no agent.
    job.open("alone").await;
    let ending = agent.state().join("ending");
    for_file(&ending);
    agent.restart(&[]);
    let (success, header) = job.host.result().await;
    assert!(!success && header.unwrap().contains(r#""exitCode":5"#));
    assert_eq!(job.host.log_text(), "begun\nalone\n");
    assert_eq!(job.runs(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_reported_job_is_neither_run_nor_reported_again() {
    let job = Gated::new().await;
    let mut agent = Agent::start(AGENT, &job.host).await;
    job.open("x").await;
    job.host.result().await;
    let requests = job.host.log_requests();
    // The file is written after the response has come.
    let reported = agent.state().join("reported");
    tokio::task::spawn_blocking(move || for_file(&reported)).await.unwrap();
    agent.crash().await;
    agent.restart(&[]);
    // The restarted agent serves the first action.
    assert!(job.host.list(job.directory.path()).await.0.unwrap().len() == 1);
    assert_eq!((job.runs(), job.host.log_requests()), (1, requests));
    agent.stop().await;
}

#[tokio::test]
async fn a_job_of_version_1_is_forgotten_with_its_host() {
    let job = Gated::new().await;
    let mut agent = Agent::start_with(AGENT, &job.host, &["--host-timeout", "1"], &[]).await;
    job.open("x").await;
    job.host.result().await;
    job.host.set_away(true);
    assert!(agent.exit_status().await.success());
    assert!(!agent.state().join("reported").exists());
    job.host.set_away(false);
    agent.restart(&[]);
    // The next host has a job of its own, although the command is the same.
    job.open("y").await;
    agent.stop().await;
    assert_eq!(job.runs(), 2);
}

#[tokio::test]
async fn again_runs_the_job_once_more() {
    let job = Gated::new().await;
    let mut agent = Agent::start(AGENT, &job.host).await;
    job.host.log_says("begun").await;
    agent.crash().await;
    // The first run is stopped.
    agent.restart(&["--again"]);
    job.host.log_says("begun\nbegun").await;
    job.open("second").await;
    job.host.result().await;
    assert_eq!(job.host.log_text(), "begun\nbegun\nsecond\n");
    assert_eq!(job.runs(), 2);
    agent.stop().await;
}

#[tokio::test]
async fn another_job_in_the_same_directory_runs() {
    let job = Gated::new().await;
    let mut agent = Agent::start(AGENT, &job.host).await;
    job.host.log_says("begun").await;
    agent.crash().await;
    job.host.set_execute(r#"{"env":{},"command":["echo","another"]}"#);
    agent.restart(&[]);
    assert!(job.host.result().await.0);
    assert_eq!(job.host.log_text(), "begun\nanother\n");
    assert_eq!(job.runs(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_job_whose_supervisor_was_killed_is_lost_and_not_run_again() {
    let job = Gated::new().await;
    let mut agent = Agent::start(AGENT, &job.host).await;
    job.host.log_says("begun").await;
    let claim = std::fs::read_to_string(agent.state().join("supervisor")).unwrap();
    let claim: serde_json::Value = serde_json::from_str(&claim).unwrap();
    let supervisor = i32::try_from(claim["pid"].as_i64().unwrap()).unwrap();
    let supervisor = rustix::process::Pid::from_raw(supervisor).unwrap();
    agent.crash().await;
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    agent.restart(&[]);
    let (success, header) = job.host.result().await;
    assert!(!success && header.unwrap().contains(r#""reason":"lost""#));
    assert!(job.host.log_text().contains("the command is lost"), "{}", job.host.log_text());
    assert_eq!(job.runs(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn the_agent_notices_that_the_supervisor_was_killed() {
    let job = Gated::new().await;
    let agent = Agent::start(AGENT, &job.host).await;
    job.host.log_says("begun").await;
    let claim = std::fs::read_to_string(agent.state().join("supervisor")).unwrap();
    let claim: serde_json::Value = serde_json::from_str(&claim).unwrap();
    let supervisor = i32::try_from(claim["pid"].as_i64().unwrap()).unwrap();
    let supervisor = rustix::process::Pid::from_raw(supervisor).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    let (success, header) = job.host.result().await;
    assert!(!success && header.unwrap().contains(r#""reason":"lost""#));
    // The kernel kills the command too, and the agent does not wait for that.
    agent.wait_for_no_job();
    agent.stop().await;
}

#[tokio::test]
async fn two_agents_cannot_share_a_state_directory() {
    let job = Gated::new().await;
    let agent = Agent::start(AGENT, &job.host).await;
    job.host.log_says("begun").await;
    let second = tokio::process::Command::new(env!("CARGO_BIN_EXE_metaservice-guest"))
        .args(["--host", &job.host.address.to_string(), "--state"])
        .arg(agent.state())
        .output()
        .await
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.starts_with("error: another agent uses the state directory"), "{said}");
    agent.stop().await;
}
