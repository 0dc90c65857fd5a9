//! Workers as processes of their own, so that they can be killed and stopped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use metaservice_fleet::queue::{Queue, Settings};
use metaservice_fleet::worker::{self, Event, Options};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::fake::Fake;

/// Has the part of a worker process. Without it the process is the test.
const PART: &str = "METASERVICE_CHAOS_WORKER";

/// The test that is also the main function of a worker process.
const MAIN: &str = "a_script_follows_from_its_job_and_attempt";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) url: String,
    pub(crate) replicas: usize,
    pub(crate) name: String,
    /// Has the directories of all workers, and what they note.
    pub(crate) root: PathBuf,
}

impl Part {
    /// The part of this process, if it is a worker.
    pub(crate) fn of_process() -> Option<Self> {
        std::env::var(PART).ok().map(|json| serde_json::from_str(&json).unwrap())
    }

    /// Works until the standard input ends.
    pub(crate) async fn play(self) {
        let (events, mut reports) = tokio::sync::mpsc::unbounded_channel();
        let drain = CancellationToken::new();
        let listen = async {
            let read = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = tokio::task::spawn_blocking(read).await;
            drain.cancel();
        };
        let report = async {
            while let Some(event) = reports.recv().await {
                eprintln!("{} {event:?}", super::fake::now());
            }
        };
        tokio::join!(self.work(events, &drain), listen, report);
    }

    async fn work(&self, events: UnboundedSender<Event>, drain: &CancellationToken) {
        let mut settings = Settings::new(&self.url);
        settings.replicas = self.replicas;
        while !drain.is_cancelled() {
            let fake = Fake { worker: self.name.clone(), journal: journal(&self.root) };
            let options = options(&self.name, &self.root);
            let failed = match Queue::connect(&settings).await {
                Ok(queue) => {
                    match worker::run_in(queue, options, fake, drain.clone(), events.clone()).await
                    {
                        Ok(_) => return,
                        Err(error) => error.to_string(),
                    }
                }
                Err(error) => error.to_string(),
            };
            eprintln!("{} {failed}", super::fake::now());
            // The servers may be down when it starts.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(crate) fn start(&self) -> Process {
        Process { child: self.command(Command::new(std::env::current_exe().unwrap())) }
    }

    /// Starts it with a program before it.
    pub(crate) fn start_in(&self, program: &str, words: &[&str]) -> Process {
        let mut command = Command::new(program);
        command.args(words).arg(std::env::current_exe().unwrap());
        Process { child: self.command(command) }
    }

    fn command(&self, mut command: Command) -> Child {
        let said = self.root.join(format!("{}.txt", self.name));
        let said = File::options().append(true).create(true).open(said).unwrap();
        command.args([MAIN, "--exact", "--nocapture"]);
        command.env(PART, serde_json::to_string(self).unwrap());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(said).kill_on_drop(true);
        command.spawn().unwrap()
    }
}

/// The file in which all workers note their runs.
pub(crate) fn journal(root: &Path) -> PathBuf {
    root.join("journal")
}

pub(crate) fn options(name: &str, root: &Path) -> Options {
    let mut options = Options::new(name.parse().unwrap(), root.join(name));
    (options.slots, options.drain_timeout) = (2, Duration::from_secs(60));
    options
}

/// A worker process. It is killed with this value.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(process, signal).unwrap();
    }

    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Makes it finish its jobs and end.
    pub(crate) async fn drained(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().await.unwrap().success(), "a worker ends well");
    }
}
