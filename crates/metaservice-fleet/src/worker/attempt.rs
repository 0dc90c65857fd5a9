//! One attempt, from the claim to its last step.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metaservice_sandbox::spec::{ArtifactSpec, JobSpec};
use tokio::sync::watch;
use tokio::time::Instant;

use super::chain::chain;
use super::decide::Stop;
use super::events::Events;
use super::files;
use super::group::{self, Group, Groups};
use super::machines::Machines;
use super::output::{self, Destination};
use super::runner::{Run, RunError};
use super::tidy;
use super::types::Event;
use crate::name::{JobId, RunId};
use crate::queue::{Queue, Written, log_name, object_name};
use crate::request::Request;
use crate::sealed::WorkerKey;
use crate::step::{
    Artifact, Change, ExceptionCause, LostCause, MAX_ARTIFACTS, MAX_MESSAGE, MAX_STEP, Object,
    Outcome,
};
use crate::store::Store;
use crate::tunnel::Door;

/// How long to wait before a step is written again that no server confirmed.
const RETRY: Duration = Duration::from_millis(500);

/// How much of an id is in the name of its machine, in characters.
const ID_IN_NAME: usize = 50;

/// What a step has beside its change, in bytes, at most.
const STEP_FRAME: usize = 1024;

/// What an attempt needs.
pub(super) struct Attempt {
    pub(super) queue: Queue,
    pub(super) id: JobId,
    /// The number of the step after the claim.
    pub(super) next: u32,
    pub(super) attempt: u32,
    pub(super) request: Arc<Request>,
    pub(super) directory: PathBuf,
    pub(super) stop: watch::Receiver<Option<Stop>>,
    pub(super) machines: Machines,
    pub(super) groups: Option<Groups>,
    /// Where artifacts go.
    pub(super) store: Store,
    /// Opens the secrets of the job.
    pub(super) key: Option<WorkerKey>,
    /// The most bytes of the log.
    pub(super) max_log: u64,
    /// The most bytes of the artifacts.
    pub(super) max_artifacts: u64,
    /// When its claim was confirmed.
    pub(super) claimed: Instant,
    pub(super) events: Events,
}

impl Attempt {
    /// Runs it, and writes its last step. Returns whether a result was written.
    pub(super) async fn run(self) -> bool {
        let directory = self.directory.clone();
        let door = Door::open(&self.queue, &self.id, self.attempt);
        let group = self.group();
        let mut stop = self.stop.clone();
        let change = tokio::select! {
            biased;
            stop = stopped(&mut stop) => match stop {
                Stop::Cancelled => Some(Change::Ended(Outcome::Cancelled)),
                Stop::Released => Some(lost(LostCause::Released, "the worker ends")),
                Stop::Dropped => None,
            },
            change = self.execute(&door, group.as_ref()) => Some(change),
        };
        let is_result = matches!(change, Some(Change::Ended(_)));
        let finishing = async {
            match change {
                Some(change) => self.finish(change).await,
                None => false,
            }
        };
        let (written, ()) = tokio::join!(finishing, door.close());
        if !written {
            self.tell(Event::Dropped { id: self.id.clone(), attempt: self.attempt });
        }
        let removing = tokio::task::spawn_blocking(move || tidy::remove(&directory));
        if let Ok(Err(error)) = removing.await {
            tracing::warn!(id = %self.id, %error, "files of a job are left");
        }
        if let Some(group) = group {
            group.close().await;
        }
        written && is_result
    }

    fn tell(&self, event: Event) {
        self.events.tell(event);
    }

    /// The cgroup of the attempt. A job does not fail for want of one.
    fn group(&self) -> Option<Group> {
        let weight = group::weight(self.request.priority, self.request.spec.machine.cpus);
        match self.groups.as_ref()?.group(&self.id, self.attempt, weight) {
            Ok(group) => Some(group),
            Err(error) => {
                tracing::warn!(id = %self.id, error = chain(&error), "a job has no cgroup");
                None
            }
        }
    }

    /// Runs the command, and carries its outputs to the queue.
    async fn execute(&self, door: &Door, group: Option<&Group>) -> Change {
        if let Err(error) = self.request.check() {
            return lost(LostCause::Refused, error.to_string());
        }
        let secrets = match self.request.secrets(&self.id, self.key.as_ref()) {
            Ok(secrets) => secrets,
            Err(error) => return lost(LostCause::Refused, error.to_string()),
        };
        let places =
            (0..self.request.spec.artifacts.len()).map(|n| files::place(&self.directory, n));
        for directory in places.chain([self.directory.clone()]) {
            if let Err(error) = tokio::fs::create_dir_all(directory).await {
                return lost(LostCause::Output, error.to_string());
            }
        }
        let ([stdout, stderr], log) = output::pipes();
        let (id, attempt) = (self.id.clone(), self.attempt);
        let cgroup = group.map(|group| group.directory().to_owned());
        let run = Run { id, attempt, spec: self.spec(), secrets, cgroup, stdout, stderr };
        let starting = |warm| self.tell(Event::Started { id: self.id.clone(), attempt, warm });
        let ended = match self.machines.start(run, door, starting).await {
            Ok(ended) => ended,
            Err(error) => return not_run(error),
        };
        let (id, attempt) = (&self.id, self.attempt);
        let full = |reason| self.tell(Event::Full { id: id.clone(), attempt, reason });
        let first = || {
            let after = self.claimed.elapsed();
            self.tell(Event::Output { id: id.clone(), attempt, after });
        };
        let to = Destination {
            queue: &self.queue,
            id: &self.id,
            attempt: self.attempt,
            directory: &self.directory,
            keeps_file: self.store.url().is_some(),
        };
        match tokio::join!(ended, log.send(to, first, full)) {
            (Ok(status), Ok(log)) => self.conclude(status, log).await,
            (Err(error), Ok(_)) => not_run(error),
            (_, Err(error)) => lost(LostCause::Output, error.to_string()),
        }
    }

    /// The description for this host: outputs go to the worker's directory, whatever the job says.
    fn spec(&self) -> JobSpec {
        let mut spec = self.request.spec.clone();
        let given = spec.name.take().unwrap_or_else(|| self.id.to_string());
        spec.hostname = spec.hostname.or(Some(given));
        // Names are unique on a host, and another attempt of the job may still end here.
        let (id, run) = (self.id.as_str(), RunId::random());
        let id = id.get(..ID_IN_NAME).unwrap_or(id);
        spec.name = Some(format!("{id}-{run}"));
        spec.max_log.0 = spec.max_log.0.min(self.max_log);
        for (number, artifact) in spec.artifacts.iter_mut().enumerate() {
            artifact.to = Some(files::place(&self.directory, number));
        }
        spec
    }

    async fn conclude(&self, status: u8, log: u64) -> Change {
        let mut artifacts = Vec::new();
        for (number, artifact) in self.request.spec.artifacts.iter().enumerate().take(MAX_ARTIFACTS)
        {
            artifacts.push(self.store(number, artifact).await);
        }
        let log_object = self.archive().await;
        Change::Ended(Outcome::Finished { status, log, log_object, artifacts })
    }

    /// Stores an artifact.
    async fn store(&self, number: usize, wanted: &ArtifactSpec) -> Artifact {
        let place = files::place(&self.directory, number);
        let object = object_name(&self.id, self.attempt, number);
        let max = self.max_artifacts;
        self.insist(|| files::store(&self.store, &place, &object, wanted, max)).await
    }

    /// Stores the whole log, if the worker has a store for it.
    async fn archive(&self) -> Option<Object> {
        self.store.url()?;
        let (path, object) = (output::file(&self.directory), log_name(&self.id, self.attempt));
        Some(self.insist(|| self.store.put_path(&object, &path)).await)
    }

    /// Tries to store something as long as the store does not take it.
    async fn insist<T, E, F>(&self, store: impl Fn() -> F) -> T
    where
        E: std::error::Error + 'static,
        F: Future<Output = Result<T, E>>,
    {
        let mut was_told = false;
        loop {
            let error = match store().await {
                Ok(stored) => return stored,
                Err(error) => error,
            };
            if self.queue.is_connected() && !std::mem::replace(&mut was_told, true) {
                let (id, attempt, reason) = (self.id.clone(), self.attempt, chain(&error));
                self.tell(Event::Full { id, attempt, reason });
            }
            drop(error);
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Writes the last step of this attempt. Returns whether it was written: another writer may have
    /// been first.
    async fn finish(&self, change: Change) -> bool {
        let change = fitting(change);
        let written = self.write(&change).await;
        let (id, attempt) = (self.id.clone(), self.attempt);
        match change {
            _ if !written => {}
            Change::Ended(outcome) => {
                let ran = self.claimed.elapsed();
                self.tell(Event::Ended { id, attempt, outcome, ran });
            }
            Change::Lost { cause, message } => {
                self.tell(Event::Lost { id, attempt, cause, message });
            }
            _ => {}
        }
        written
    }

    /// The number of the step decides who was first. A drop ends only the wait for a server: the step
    /// of this attempt, seen by the worker's reader, is also one.
    async fn write(&self, change: &Change) -> bool {
        let mut number = self.next;
        loop {
            match self.queue.write(&self.id, number, change.clone()).await {
                Ok(Written::Own) => return true,
                // A cancellation takes a number and leaves the job to this attempt.
                Ok(Written::Other(Some(other))) if *other == Change::Cancelled => number += 1,
                Ok(Written::Other(_)) => return false,
                Err(error) => {
                    tracing::warn!(id = %self.id, %error, "the queue confirms no result");
                    if *self.stop.borrow() == Some(Stop::Dropped) {
                        return false;
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    match stop.wait_for(Option::is_some).await.map(|stop| *stop) {
        Ok(Some(stop)) => stop,
        // The worker is gone, and its lease with it.
        _ => Stop::Dropped,
    }
}

fn not_run(error: RunError) -> Change {
    match error {
        RunError::Refused(message) => lost(LostCause::Refused, message),
        RunError::Machine(message) => lost(LostCause::Machine, message),
        RunError::TooLarge(_) => {
            let (cause, message) = (ExceptionCause::Artifacts, error.to_string());
            Change::Ended(Outcome::Exception { cause, message })
        }
    }
}

/// The step, or an exception if it is longer than the queue takes: no retry makes it shorter.
fn fitting(change: Change) -> Change {
    let length = serde_json::to_vec(&change).map_or(usize::MAX, |json| json.len());
    if length < MAX_STEP - STEP_FRAME {
        return change;
    }
    let message =
        format!("the names of its artifacts take {length} bytes, more than a step may have");
    let cause = ExceptionCause::Artifacts;
    Change::Ended(Outcome::Exception { cause, message })
}

fn lost(cause: LostCause, message: impl Into<String>) -> Change {
    let mut message = message.into();
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    Change::Lost { cause, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_is_longer_than_a_step_is_an_exception() {
        let artifact = |length| Artifact {
            path: "p".repeat(length),
            object: None,
            is_directory: false,
            error: None,
        };
        let ended = |length| {
            let artifacts = vec![artifact(length)];
            Change::Ended(Outcome::Finished { status: 0, log: 0, log_object: None, artifacts })
        };
        assert_eq!(fitting(ended(1000)), ended(1000));
        let Change::Ended(Outcome::Exception { cause, message }) = fitting(ended(MAX_STEP)) else {
            panic!("it is no exception");
        };
        assert_eq!(cause, ExceptionCause::Artifacts);
        assert!(message.len() < MAX_MESSAGE);
    }
}
