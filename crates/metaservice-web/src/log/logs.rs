//! The logs that are open, a limited number of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::access::{Access, AccessError};
use super::open::OpenLog;
use crate::source::Source;

/// The most logs that are open. Each has an index of less than 1 MiB, and a task.
const MAX_OPEN: usize = 16;

/// The open logs.
pub(crate) struct Logs {
    source: Arc<dyn Source>,
    /// The one that was used last is the last.
    open: Mutex<VecDeque<(Key, Arc<OpenLog>)>>,
}

/// The name of a job, and the attempt that is asked for.
type Key = (String, Option<u32>);

impl Logs {
    /// No log is open.
    pub(crate) fn new(source: Arc<dyn Source>) -> Self {
        Self { source, open: Mutex::default() }
    }

    /// The log of the job `name`, or of one of its attempts, opened if it is not. Cancel safe.
    pub(crate) async fn open(
        &self,
        name: &str,
        attempt: Option<u32>,
    ) -> Result<Arc<OpenLog>, AccessError> {
        let access = Access::find(&*self.source, name, attempt).await?;
        let key = (name.to_owned(), attempt);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = open.iter().position(|(known, _)| *known == key)
            && let Some((key, log)) = open.remove(at)
            && log.started_ms() == access.started_ms()
        {
            open.push_back((key, Arc::clone(&log)));
            return Ok(log);
        }
        while open.len() >= MAX_OPEN {
            open.pop_front();
        }
        let log = Arc::new(OpenLog::start(Arc::clone(&self.source), name, attempt, access));
        open.push_back((key, Arc::clone(&log)));
        Ok(log)
    }

    /// The log of the job `name` that was started then, if it is open.
    pub(crate) fn get(&self, name: &str, started_ms: u64) -> Option<Arc<OpenLog>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open
            .iter()
            .position(|((known, _), log)| known == name && log.started_ms() == started_ms)?;
        let used = open.remove(at)?;
        let log = Arc::clone(&used.1);
        open.push_back(used);
        Some(log)
    }
}
