//! What the server says when a user lacks a right. It says so on the connection and does not answer
//! the request, so a call would only run out of time.

use std::fmt;
use std::sync::Arc;

use tokio::sync::broadcast;

/// How many of the server's words are kept for a slow reader.
const KEPT: usize = 64;

/// A user lacks a right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the user of the queue may not {access} to {subject}")]
pub struct Denied {
    /// What it may not do.
    pub access: Access,
    /// The subject.
    pub subject: String,
}

/// What a user does with a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It sends messages to it.
    Publish,
    /// It receives its messages.
    Subscribe,
}

impl fmt::Display for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        })
    }
}

/// The denials of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Denials {
    errors: broadcast::Sender<Arc<str>>,
    /// Below this subject, the connection receives all answers.
    inbox: Arc<str>,
}

impl Denials {
    pub(super) fn new(inbox: &str) -> Self {
        Self { errors: broadcast::Sender::new(KEPT), inbox: format!("{inbox}.>").into() }
    }

    /// Takes an error of the server.
    pub(super) fn note(&self, error: &str) {
        // Without a call, no one wants to know.
        let _ = self.errors.send(error.into());
    }

    /// Makes a call that publishes to this subject. Ends it if the server denies that.
    pub(crate) async fn watch<T>(
        &self,
        subject: &str,
        call: impl Future<Output = T>,
    ) -> Result<T, Denied> {
        self.watch_all(&[subject], call).await
    }

    /// As [`watch`](Self::watch), for a call that publishes to several subjects. One that ends with
    /// `>` is any that begins so.
    pub(crate) async fn watch_all<T>(
        &self,
        subjects: &[&str],
        call: impl Future<Output = T>,
    ) -> Result<T, Denied> {
        let mut watcher = self.watcher(subjects);
        tokio::select! {
            biased;
            result = call => Ok(result),
            denied = watcher.denied() => Err(denied),
        }
    }

    /// Hears of each denial from now on that concerns these subjects, or the answers to all calls.
    pub(crate) fn watcher(&self, subjects: &[&str]) -> Watcher {
        let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
        Watcher { errors: self.errors.subscribe(), subjects, inbox: self.inbox.clone() }
    }
}

/// Hears of denials.
#[derive(Debug)]
pub(crate) struct Watcher {
    errors: broadcast::Receiver<Arc<str>>,
    subjects: Vec<String>,
    inbox: Arc<str>,
}

impl Watcher {
    /// The next denial. Waits for it.
    ///
    /// Cancel safe.
    pub(crate) async fn denied(&mut self) -> Denied {
        loop {
            match self.errors.recv().await {
                Ok(error) => {
                    if let Some(denied) = denial(&error)
                        && self.concerns(&denied)
                    {
                        return denied;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    fn concerns(&self, denied: &Denied) -> bool {
        match denied.access {
            Access::Publish => self.subjects.iter().any(|pattern| is_in(&denied.subject, pattern)),
            Access::Subscribe => is_in(&denied.subject, &self.inbox),
        }
    }
}

/// Whether a subject is this one, or begins so if this one ends with `>`.
fn is_in(subject: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('>') {
        Some(head) => subject.starts_with(head),
        None => subject == pattern,
    }
}

/// What this error of the server denies.
fn denial(error: &str) -> Option<Denied> {
    let (head, rest) = error.split_once('"')?;
    let subject = rest.split('"').next().unwrap_or_default().to_owned();
    let access = match head.trim_end().to_ascii_lowercase().as_str() {
        "permissions violation for publish to" => Access::Publish,
        "permissions violation for subscription to" => Access::Subscribe,
        _ => return None,
    };
    Some(Denied { access, subject })
}

/// Whether this error of the server says that the user may not publish there.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_denial(error: &str, subject: &str) -> bool {
    denial(error)
        .is_some_and(|denied| denied.access == Access::Publish && denied.subject == subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_names_its_subject() {
        let error = "Permissions Violation for Publish to \"ms.log.a.1\"";
        assert!(is_denial(error, "ms.log.a.1"));
        assert!(!is_denial(error, "ms.log.a.11") && !is_denial(error, "ms.log.a"));
        assert!(!is_denial("Permissions Violation for Subscription to \"a\"", "a"));
        assert!(!is_denial("Stale Connection", "a"));
    }

    #[tokio::test]
    async fn a_call_ends_with_its_own_denial() {
        let denials = Denials::new("_INBOX.w");
        let noting = async {
            for subject in ["b", "a.1", "a"] {
                denials.note(&format!("Permissions Violation for Publish to \"{subject}\""));
            }
            std::future::pending::<()>().await;
        };
        let denied = denials.watch("a", noting).await.unwrap_err();
        assert_eq!(denied.to_string(), "the user of the queue may not publish to a");
        assert_eq!(denials.watch("a", async { 1 }).await, Ok(1));
    }

    #[tokio::test]
    async fn a_call_with_several_subjects_ends_with_that_of_one() {
        let denials = Denials::new("_INBOX.w");
        let noting = async {
            for subject in ["$O.other.C.x", "$O.files", "$O.files.C.x"] {
                denials.note(&format!("Permissions Violation for Publish to \"{subject}\""));
            }
            std::future::pending::<()>().await;
        };
        let denied = denials.watch_all(&["a", "$O.files.>"], noting).await.unwrap_err();
        assert_eq!(denied.subject, "$O.files.C.x");
    }

    #[tokio::test]
    async fn a_call_ends_if_no_answer_can_come() {
        let denials = Denials::new("_INBOX.w");
        let noting = async {
            for subject in ["ms.open.>", "_INBOX.worker.x.*", "_INBOX.w.x.*"] {
                denials.note(&format!("Permissions Violation for Subscription to \"{subject}\""));
            }
            std::future::pending::<()>().await;
        };
        let denied = denials.watch("a", noting).await.unwrap_err();
        let text = "the user of the queue may not subscribe to _INBOX.w.x.*";
        assert_eq!(denied.to_string(), text);
    }
}
