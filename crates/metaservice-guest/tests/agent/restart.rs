//! An agent that dies and comes back.

use metaservice_testing::host::{Agent, Host, make_fifo};
use std::path::PathBuf;

use crate::AGENT;

/// A job that counts its runs, says "begun", waits for a line in a FIFO, and ends with 5.
struct Gated {
    folder: tempfile::TempDir,
    host: Host,
}

impl Gated {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let gate = folder.path().join("gate");
        make_fifo(&gate);
        let script = "echo run >> count; echo begun; read line < gate; echo $line; exit 5";
        let line = format!("cd {}; {script}", folder.path().display());
        let host = Host::start(&["sh", "-c", &line]).await;
        Self { folder, host }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
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
async fn what_was_said_while_the_agent_was_away_is_kept() {
    let job = Gated::new().await;
    let mut agent = Agent::start(AGENT, &job.host).await;
    job.host.log_says("begun").await;
    agent.crash().await;
    // The command says its last word and ends; nobody is there.
    job.open("alone").await;
    let ending = agent.state().join("ending");
    while !ending.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
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
    // The mark is made after the answer has come.
    let reported = agent.state().join("reported");
    while !reported.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    agent.crash().await;
    agent.restart(&[]);
    // It serves: the first action after the restart is answered.
    assert!(job.host.list(job.folder.path()).await.0.unwrap().len() == 1);
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
    // A host that is there now has a job of its own, although it is the same command.
    job.open("y").await;
    agent.stop().await;
    assert_eq!(job.runs(), 2);
}

#[tokio::test]
async fn again_means_again() {
    let job = Gated::new().await;
    let mut agent = Agent::start(AGENT, &job.host).await;
    job.host.log_says("begun").await;
    agent.crash().await;
    // The first run is still there, and stopped.
    agent.restart(&["--again"]);
    job.host.log_says("begun\nbegun").await;
    job.open("second").await;
    job.host.result().await;
    assert_eq!(job.host.log_text(), "begun\nbegun\nsecond\n");
    assert_eq!(job.runs(), 2);
    agent.stop().await;
}

#[tokio::test]
async fn another_job_in_the_same_folder_is_run() {
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
async fn a_job_whose_supervisor_vanished_is_lost_and_not_run_again() {
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
async fn a_supervisor_that_vanishes_under_its_agent_is_noticed() {
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
    agent.stop().await;
}

#[tokio::test]
async fn two_agents_do_not_share_a_state() {
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
