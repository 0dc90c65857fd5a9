//! The list of a user's jobs, again after each change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metaservice::control::{Client, Job, JobState};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::blocking::block;
use crate::control::ControlError;
use crate::history::{Changes, Jobs};
use crate::job::JobName;
use crate::listing::{ListedJob, list_in};

/// How long changes are collected: a start and an end are several.
const SETTLE: Duration = Duration::from_millis(100);

/// When the list is made again without a change, while a job runs: no event says that a guest is
/// silent, or that a process does not answer.
const REFRESH: Duration = Duration::from_secs(5);

/// The list of a user's jobs, running and ended, again after each change.
#[derive(Debug)]
pub struct JobsWatch {
    jobs: Jobs,
    changes: Changes,
    /// Notified when a job has changed its state.
    changed: Arc<Notify>,
    /// The tasks that wait for a change of each job that runs.
    waits: BTreeMap<Phase, AbortOnDropHandle<()>>,
    listed: Option<bool>,
}

/// A job in a state that ends with an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Phase {
    name: String,
    started_ms: u64,
    /// Whether the guest has fetched the command.
    runs: bool,
}

impl JobsWatch {
    /// Begins to watch the directory of jobs. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The directory cannot be used, or cannot be watched.
    pub fn open() -> Result<Self, ControlError> {
        Self::of(block(Jobs::open).map_err(ControlError::Directory)?)
    }

    fn of(jobs: Jobs) -> Result<Self, ControlError> {
        let path = jobs.path();
        let changes = Changes::of(path)
            .map_err(|cause| ControlError::Watch { path: path.to_owned(), cause })?;
        let changed = Arc::new(Notify::new());
        Ok(Self { jobs, changes, changed, waits: BTreeMap::new(), listed: None })
    }

    /// The list: the first time at once, then after a change. While jobs run, the list is made
    /// again after some seconds too. Takes two seconds more at most, as [`list`](crate::list).
    /// Cancel safe.
    ///
    /// # Errors
    /// The directory of jobs cannot be used.
    pub async fn next(&mut self) -> Result<Vec<ListedJob>, ControlError> {
        if let Some(some_run) = self.listed {
            let refresh = async {
                match some_run {
                    true => sleep(REFRESH).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                appeared = self.changes.next() => appeared.map_err(|cause| {
                    ControlError::Watch { path: self.jobs.path().to_owned(), cause }
                })?,
                () = self.changed.notified() => {}
                () = refresh => {}
            }
            // If this future is dropped now, the next one lists at once.
            self.listed = None;
            sleep(SETTLE).await;
        }
        let listed = list_in(&self.jobs, true).await?;
        self.await_changes(&listed);
        self.listed = Some(listed.iter().any(|job| !matches!(job, ListedJob::Ended(_))));
        Ok(listed)
    }

    /// Waits for the changes of these jobs, and no longer for those of others.
    fn await_changes(&mut self, listed: &[ListedJob]) {
        let mut before = std::mem::take(&mut self.waits);
        for job in listed {
            let ListedJob::Running(job) = job else { continue };
            let Some(phase) = phase(job) else { continue };
            let wait = before.remove(&phase).or_else(|| self.wait(&phase));
            self.waits.extend(wait.map(|wait| (phase, wait)));
        }
    }

    fn wait(&self, phase: &Phase) -> Option<AbortOnDropHandle<()>> {
        let name: JobName = phase.name.parse().ok()?;
        let client = Client::new(self.jobs.socket(&name));
        let (runs, changed) = (phase.runs, Arc::clone(&self.changed));
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            // An error is a change too: the job is gone.
            let _ = if runs { client.wait().await } else { client.wait_for_start().await };
            changed.notify_one();
        })))
    }
}

/// `None`: the job has ended, and its process has not.
fn phase(job: &Job) -> Option<Phase> {
    let runs = match job.state {
        JobState::Waiting => false,
        JobState::Running | JobState::Unresponsive => true,
        _ => return None,
    };
    Some(Phase { name: job.name.clone(), started_ms: job.started_ms, runs })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::history::{Began, Claim, Claimed, Keep};

    fn claim(jobs: Jobs, name: &str) -> Claimed {
        let began = Began {
            started_ms: 5,
            pid: 7,
            command: vec!["make".to_owned()],
            env: Vec::new(),
            spec: json!({ "version": 1 }),
        };
        Claim::make(jobs, &name.parse().unwrap(), &began, Some(&Keep::default())).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_list_follows_jobs_that_come_and_go() {
        let place = tempfile::tempdir().unwrap();
        let jobs = || Jobs::at(place.path().join("jobs"));
        let mut watch = JobsWatch::of(jobs()).unwrap();
        assert!(watch.next().await.unwrap().is_empty());
        let Claimed { claim, listener, .. } = claim(jobs(), "build");
        drop((listener, claim));
        let [ListedJob::Ended(past)] = &watch.next().await.unwrap()[..] else {
            panic!("one job has ended")
        };
        assert_eq!(past.job.name, "build");
        // Nothing runs, so only the removal completes it.
        jobs().remove(&"build".parse().unwrap()).unwrap();
        assert!(watch.next().await.unwrap().is_empty());
    }

    #[test]
    fn a_phase_ends_with_an_event() {
        let job = |state| {
            let job = json!({ "name": "a", "command": [], "state": state, "pid": 1 });
            phase(&serde_json::from_value(job).unwrap()).map(|phase| phase.runs)
        };
        let phases = ["waiting", "running", "unresponsive", "failed", "kept"].map(job);
        assert_eq!(phases, [Some(false), Some(true), Some(true), None, None]);
    }
}
