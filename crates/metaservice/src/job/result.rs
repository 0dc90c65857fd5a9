//! The job's result: it is set once.

use metaservice_private::lock;
use metaservice_protocol::{Ending, Reason};
use tokio::sync::watch;

/// How the job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobResult {
    /// Whether the guest reported success.
    pub success: bool,
    /// The detail; `None` from an agent of version 1.
    pub ending: Option<Ending>,
}

impl JobResult {
    /// A result as the guest reports it.
    #[must_use]
    pub fn new(success: bool, ending: Option<Ending>) -> Self {
        Self { success, ending }
    }

    /// The exit status of the job: from the detail, if there is one, else 0 or 1. It is 124 if the
    /// host ended the command because of its timeout.
    #[must_use]
    pub fn status(&self) -> u8 {
        match &self.ending {
            _ if self.success => 0,
            Some(ending) if ending.reason == Reason::TimedOut => 124,
            // A failure with the detail of a success stays a failure.
            Some(ending) => ending.shell_status().max(1),
            None => 1,
        }
    }
}

type Callback = Box<dyn FnOnce(JobResult) + Send>;

/// The job has the opposite result already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict;

/// The result, and the callback that the first result calls.
pub(crate) struct ResultSlot {
    sender: watch::Sender<Option<JobResult>>,
    callback: std::sync::Mutex<Option<Callback>>,
    /// Why the host had the command killed.
    killed_for: std::sync::Mutex<Option<Reason>>,
}

impl ResultSlot {
    pub(crate) fn new(callback: Option<Callback>) -> Self {
        Self {
            sender: watch::Sender::new(None),
            callback: std::sync::Mutex::new(callback),
            killed_for: std::sync::Mutex::new(None),
        }
    }

    /// Sets the reason for a command that is reported as killed from now on.
    pub(crate) fn killed_for(&self, reason: Reason) {
        *lock(&self.killed_for) = Some(reason);
    }

    /// A result with the host's reason for a kill, which the guest does not know.
    pub(crate) fn explained(&self, mut result: JobResult) -> JobResult {
        if let Some(ending) = &mut result.ending
            && ending.reason == Reason::Killed
            && let Ok(killed_for) = self.killed_for.lock()
        {
            ending.reason = killed_for.unwrap_or(Reason::Killed);
        }
        result
    }

    /// Sets the result. It is not an error if it is set to the same again.
    pub(crate) fn resolve(&self, result: JobResult) -> Result<(), Conflict> {
        let result = self.explained(result);
        let mut answer = Ok(());
        let first = self.sender.send_if_modified(|current| match current {
            None => {
                *current = Some(result.clone());
                true
            }
            Some(earlier) => {
                if earlier.success != result.success {
                    answer = Err(Conflict);
                }
                false
            }
        });
        if first
            && let Ok(mut callback) = self.callback.lock()
            && let Some(callback) = callback.take()
        {
            // The callback may block, and the guest's response does not wait for it.
            tokio::task::spawn_blocking(move || callback(result));
        }
        answer
    }

    /// For a task that waits for the result without keeping the job alive.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<JobResult>> {
        self.sender.subscribe()
    }

    /// Waits for the result.
    pub(crate) async fn wait(&self) -> JobResult {
        let mut receiver = self.sender.subscribe();
        let result = receiver.wait_for(Option::is_some).await;
        match result.ok().and_then(|result| result.clone()) {
            Some(result) => result,
            // The sender lives as long as `self`.
            None => std::future::pending().await,
        }
    }

    /// The result, if there is one.
    pub(crate) fn get(&self) -> Option<JobResult> {
        self.sender.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn result(success: bool) -> JobResult {
        JobResult { success, ending: None }
    }

    #[tokio::test]
    async fn the_first_result_counts_and_calls_back_once() {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let (called, was_called) = tokio::sync::oneshot::channel();
        let outcome = ResultSlot::new(Some(Box::new(move |result| {
            CALLS.fetch_add(1, Ordering::SeqCst);
            let _ = called.send(result);
        })));
        assert_eq!(outcome.get(), None);
        assert_eq!(outcome.resolve(result(true)), Ok(()));
        assert_eq!(outcome.resolve(result(true)), Ok(()));
        assert_eq!(outcome.resolve(result(false)), Err(Conflict));
        assert_eq!(was_called.await.unwrap(), result(true));
        assert_eq!(outcome.wait().await, result(true));
        assert_eq!(CALLS.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_killed_command_has_the_hosts_reason() {
        for (reported, reason) in
            [(Reason::Killed, Reason::TimedOut), (Reason::Exited, Reason::Exited)]
        {
            let outcome = ResultSlot::new(None);
            outcome.killed_for(Reason::TimedOut);
            let ending = Some(Ending::new(reported));
            outcome.resolve(JobResult { success: false, ending }).unwrap();
            assert_eq!(outcome.wait().await.ending.unwrap().reason, reason);
        }
    }

    #[test]
    fn a_failure_is_never_status_0() {
        let zero = Ending { exit_code: Some(0), ..Ending::new(Reason::Exited) };
        assert_eq!(JobResult { success: false, ending: Some(zero) }.status(), 1);
        assert_eq!(result(true).status(), 0);
        let late = Ending { signal: Some(15), ..Ending::new(Reason::TimedOut) };
        assert_eq!(JobResult { success: false, ending: Some(late) }.status(), 124);
    }
}
