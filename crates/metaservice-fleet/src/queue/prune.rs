//! The removal of jobs that have ended, with their logs and artifacts.

use std::collections::HashMap;

use async_nats::jetstream::object_store::InfoErrorKind;
use tokio::time::Instant;

use super::connection::{FILES, JOBS, LOGS, OBJECTS, Queue};
use super::denial::Denied;
use super::error::{PruneError, ServerError};
use super::keys::{content_subject, job_subjects, mark_subject, object_name};
use super::watch::StoredStep;
use crate::log;
use crate::name::JobId;
use crate::state::JobState;
use crate::step::Outcome;
use crate::view::View;

/// What was not removed.
pub(super) fn failed(error: ServerError) -> PruneError {
    match error.downcast::<Denied>() {
        Ok(denied) => PruneError::Denied(*denied),
        Err(error) => PruneError::Server(error),
    }
}

impl Queue {
    /// Removes the logs of jobs that have ended and that `is_old` names, if their workers have
    /// stored the whole logs. Returns the ids of the jobs.
    ///
    /// Cancellation: a part of a log is removed. The next call removes the rest.
    ///
    /// # Errors
    /// When no server answers. The logs before are removed.
    pub async fn prune_stored_logs(
        &self,
        is_old: impl Fn(&JobState) -> bool,
    ) -> Result<Vec<JobId>, PruneError> {
        let view = self.view().await?;
        let has_stored = |job: &JobState| {
            matches!(job.outcome(), Some(Outcome::Finished { log_object: Some(_), .. }))
        };
        let old = view.jobs().filter(|(_, job)| has_stored(job) && is_old(job));
        let mut ids: Vec<JobId> = old.map(|(id, _)| id.clone()).collect();
        for id in &ids {
            self.remove(LOGS, log::subjects(id), None).await.map_err(failed)?;
        }
        ids.sort();
        Ok(ids)
    }

    /// Removes the jobs that have ended and that `is_old` names, with their logs and artifacts in
    /// the queue. What is in another store stays. Returns their ids. An id that was removed
    /// may be submitted again. A job that this version cannot read stays.
    ///
    /// Cancellation: a part of a job is removed. The next call removes the rest.
    ///
    /// # Errors
    /// When no server answers. The jobs before are removed.
    pub async fn prune(
        &self,
        is_old: impl Fn(&JobState) -> bool,
    ) -> Result<Vec<JobId>, PruneError> {
        let mut view = View::of_client();
        let mut last: HashMap<JobId, u64> = HashMap::new();
        let began = Instant::now();
        let mut steps = self.steps().await?;
        while !steps.is_caught_up() {
            let StoredStep { id, at, change } = steps.next().await?;
            last.insert(id.clone(), at.sequence);
            view.apply(began.elapsed(), &id, at, change);
        }
        let mut removed = Vec::new();
        for (id, last) in last {
            match view.job(&id) {
                Some(job) if job.outcome().is_some() && is_old(job) => {
                    self.remove_outputs(&id, job).await.map_err(failed)?;
                    self.remove(JOBS, job_subjects(&id), Some(last)).await.map_err(failed)?;
                    removed.push(id);
                }
                Some(_) => {}
                None if view.is_unknown(&id) => {}
                // A late step of a job that was removed.
                None => {
                    self.remove(JOBS, job_subjects(&id), Some(last)).await.map_err(failed)?;
                }
            }
        }
        removed.sort();
        Ok(removed)
    }

    /// Removes what all attempts of a job have left.
    async fn remove_outputs(&self, id: &JobId, job: &JobState) -> Result<(), ServerError> {
        let files = self.context().get_object_store(FILES).await?;
        let count = job.request.spec.artifacts.len();
        for attempt in 1..=job.attempt {
            for number in 0..count {
                let name = object_name(id, attempt, number);
                match files.info(&name).await {
                    // Deleting it would write that it is deleted, which a full server refuses.
                    Ok(info) => {
                        self.remove(OBJECTS, content_subject(&info.nuid), None).await?;
                        self.remove(OBJECTS, mark_subject(&name), None).await?;
                    }
                    Err(error) if error.kind() == InfoErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.remove(LOGS, log::subjects(id), None).await
    }

    /// Removes the messages of these subjects, up to this one.
    ///
    /// A user without the right to do that gets a [`Denied`](super::Denied).
    pub(super) async fn remove(
        &self,
        stream: &str,
        subjects: String,
        last: Option<u64>,
    ) -> Result<(), ServerError> {
        let subject = format!("$JS.API.STREAM.PURGE.{stream}");
        let purge = self.stream(stream).await?.purge().filter(subjects);
        let purging = async {
            match last {
                Some(last) => purge.sequence(last + 1).await,
                None => purge.await,
            }
        };
        self.denials().watch(&subject, purging).await??;
        Ok(())
    }
}
