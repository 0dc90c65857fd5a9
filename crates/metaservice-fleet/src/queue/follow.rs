//! One job, from its state now to its end.

use super::connection::Queue;
use super::error::ReadError;
use super::keys::step_subject;
use super::watch::{Steps, StoredStep};
use crate::history::{Attempt, History};
use crate::name::JobId;
use crate::state::JobState;

/// The states of a job.
#[derive(Debug)]
pub struct Follow {
    id: JobId,
    steps: Steps,
    history: Option<History>,
}

impl Follow {
    pub(super) async fn open(queue: &Queue, id: &JobId) -> Result<Self, ReadError> {
        let subject = step_subject(id, 0).trim_end_matches('0').to_owned() + "*";
        let steps = Steps::open(queue, subject).await?;
        Ok(Self { id: id.clone(), steps, history: None })
    }

    /// The state now, and then the state after each change. Waits for it.
    ///
    /// Cancellation: no change is lost.
    ///
    /// # Errors
    /// When there is no such job, a later version submitted it, or no server answers.
    pub async fn next(&mut self) -> Result<JobState, ReadError> {
        let is_first = self.history.is_none();
        if is_first && self.steps.is_caught_up() {
            return Err(ReadError::NoJob(self.id.clone()));
        }
        loop {
            let StoredStep { at, change, .. } = self.steps.next().await?;
            let changed = match &mut self.history {
                Some(history) => history.apply(at, change),
                None => {
                    self.history = change.and_then(|change| History::submitted(at, change));
                    self.history.is_some()
                }
            };
            let caught_up = self.steps.is_caught_up();
            match &self.history {
                Some(history) if caught_up && (changed || is_first) => {
                    return Ok(history.state().clone());
                }
                None if at.number == 0 => return Err(ReadError::Later(self.id.clone())),
                None if caught_up => return Err(ReadError::NoJob(self.id.clone())),
                _ => {}
            }
        }
    }

    /// The attempts of the job, as they were when [`next`](Self::next) returned last. Of many, only
    /// the last hundred are kept.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        self.history.as_ref().map(History::attempts).unwrap_or_default()
    }
}
