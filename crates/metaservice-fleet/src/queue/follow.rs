//! One job, from its state now to its end.

use super::connection::Queue;
use super::error::ReadError;
use super::keys::step_subject;
use super::watch::{Steps, StoredStep};
use crate::name::JobId;
use crate::state::JobState;

/// The states of a job.
#[derive(Debug)]
pub struct Follow {
    id: JobId,
    steps: Steps,
    state: Option<JobState>,
}

impl Follow {
    pub(super) async fn open(queue: &Queue, id: &JobId) -> Result<Self, ReadError> {
        let subject = step_subject(id, 0).trim_end_matches('0').to_owned() + "*";
        let steps = Steps::open(queue, subject).await?;
        Ok(Self { id: id.clone(), steps, state: None })
    }

    /// The state now, and then the state after each change. Waits for it.
    ///
    /// Cancellation: no change is lost.
    ///
    /// # Errors
    /// When there is no such job, a later version submitted it, or no server answers.
    pub async fn next(&mut self) -> Result<JobState, ReadError> {
        let is_first = self.state.is_none();
        if is_first && self.steps.is_caught_up() {
            return Err(ReadError::NoJob(self.id.clone()));
        }
        loop {
            let StoredStep { at, change, .. } = self.steps.next().await?;
            let changed = match &mut self.state {
                Some(state) => state.apply(at, change),
                None => {
                    self.state = change.and_then(|change| JobState::submitted(at, change));
                    self.state.is_some()
                }
            };
            let caught_up = self.steps.is_caught_up();
            match &self.state {
                Some(state) if caught_up && (changed || is_first) => return Ok(state.clone()),
                None if at.number == 0 => return Err(ReadError::Later(self.id.clone())),
                None if caught_up => return Err(ReadError::NoJob(self.id.clone())),
                _ => {}
            }
        }
    }
}
