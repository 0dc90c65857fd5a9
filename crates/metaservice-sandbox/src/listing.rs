//! The list of a user's jobs: those that run, and those that have ended.

use std::collections::BTreeMap;
use std::time::Duration;

use metaservice::control::{Client, Job};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::blocking::block;
use crate::control::{self, ControlError, Running};
use crate::history::{Jobs, PastJob};
use crate::job::JobName;

/// How long a job may take to answer, or to end: one that is stopped does not hide the others.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// A job of the list.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListedJob {
    /// It runs.
    Running(Box<Job>),
    /// Its process has ended.
    Ended(Box<PastJob>),
    /// Its process does not answer: it is stopped or stuck.
    Silent {
        /// The job's name.
        name: String,
        /// The process, if the system says it.
        pid: Option<i32>,
    },
}

impl ListedJob {
    /// The state of a job that does not answer.
    pub const SILENT: &str = "silent";

    /// The job as JSON, as the control API describes it.
    #[must_use]
    pub fn json(&self) -> Value {
        fn describe(job: &impl Serialize) -> Value {
            json!(job)
        }
        match self {
            Self::Running(job) => describe(job),
            Self::Ended(past) => describe(past),
            Self::Silent { name, pid } => {
                json!({ "name": name, "state": Self::SILENT, "pid": pid })
            }
        }
    }
}

/// The jobs of this user that run, by name; with `all`, also those that have ended.
///
/// Takes two seconds at most: one for the jobs that run, and one for those that are about to end.
/// Cancel safe.
///
/// # Errors
/// When the directory of jobs cannot be used.
pub async fn list(all: bool) -> Result<Vec<ListedJob>, ControlError> {
    let jobs = block(Jobs::open).map_err(ControlError::Directory)?;
    list_in(&jobs, all).await
}

pub(crate) async fn list_in(jobs: &Jobs, all: bool) -> Result<Vec<ListedJob>, ControlError> {
    let mut asking = JoinSet::new();
    for Running { name, pid, client } in control::all_in(jobs).await? {
        asking.spawn(async move {
            let job = ask(&name, pid, &client).await?;
            Some((name, job))
        });
    }
    let mut listed: BTreeMap<String, ListedJob> =
        asking.join_all().await.into_iter().flatten().collect();
    if all {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        for name in block(|| jobs.names()).map_err(ControlError::Directory)? {
            if !listed.contains_key(name.as_str())
                && let Some(job) = past(jobs, &name, deadline).await
            {
                listed.insert(name.to_string(), job);
            }
        }
    }
    Ok(listed.into_values().collect())
}

/// A job that listens. `None`: it is about to end.
async fn ask(name: &str, pid: Option<i32>, client: &Client) -> Option<ListedJob> {
    match timeout(ANSWER_TIMEOUT, client.job()).await {
        Ok(Ok(job)) => Some(ListedJob::Running(Box::new(job))),
        Ok(Err(_)) => None,
        Err(_) => Some(ListedJob::Silent { name: name.to_owned(), pid }),
    }
}

/// A job that has ended, or that is about to end. `None`: it has left nothing.
async fn past(jobs: &Jobs, name: &JobName, deadline: Instant) -> Option<ListedJob> {
    if jobs.is_running(name)
        && timeout_at(deadline, control::has_ended(jobs, name)).await != Ok(true)
    {
        return Some(ListedJob::Silent { name: name.to_string(), pid: None });
    }
    block(|| jobs.past(name)).map(|past| ListedJob::Ended(Box::new(past)))
}

#[cfg(test)]
mod tests {
    use metaservice::control::JobState;

    use super::*;
    use crate::history::{Began, Claim, Claimed, Keep};

    #[tokio::test]
    async fn a_job_that_is_about_to_end_is_listed() {
        let place = tempfile::tempdir().unwrap();
        let jobs = || Jobs::at(place.path().join("jobs"));
        let began = Began {
            started_ms: 5,
            pid: 7,
            command: vec!["make".to_owned()],
            env: Vec::new(),
            spec: json!({ "version": 1 }),
        };
        let name = "build".parse().unwrap();
        let Claimed { claim, listener, .. } =
            Claim::make(jobs(), &name, &began, Some(&Keep::default())).unwrap();
        // The service has ended, and the process has not.
        drop(listener);
        let jobs = jobs();
        let ends = async {
            tokio::task::yield_now().await;
            drop(claim);
        };
        let (listed, ()) = tokio::join!(list_in(&jobs, true), ends);
        let [ListedJob::Ended(past)] = &listed.unwrap()[..] else { panic!("one job has ended") };
        assert_eq!(past.job.state, JobState::Lost);
        assert!(list_in(&jobs, false).await.unwrap().is_empty());
    }
}
