//! What the server says when a user lacks a right. It says so on the connection and does not answer
//! the request, so a call would only run out of time.

use std::sync::Arc;

use tokio::sync::broadcast;

/// How many of the server's words are kept for a slow reader.
const KEPT: usize = 64;

/// A user lacks a right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the user of the queue may not publish to {subject}")]
pub struct Denied {
    /// The subject.
    pub subject: String,
}

/// The denials of one connection.
#[derive(Debug, Clone)]
pub(super) struct Denials(broadcast::Sender<Arc<str>>);

impl Denials {
    pub(super) fn new() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }

    /// Takes an error of the server.
    pub(super) fn note(&self, error: &str) {
        // Without a call, no one wants to know.
        let _ = self.0.send(error.into());
    }

    /// Makes a call that publishes to this subject. Ends it if the server denies that.
    pub(super) async fn watch<T>(
        &self,
        subject: &str,
        call: impl Future<Output = T>,
    ) -> Result<T, Denied> {
        let mut errors = self.0.subscribe();
        let denied = async {
            loop {
                match errors.recv().await {
                    Ok(error) if is_denial(&error, subject) => return,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            biased;
            result = call => Ok(result),
            () = denied => Err(Denied { subject: subject.to_owned() }),
        }
    }
}

/// Whether this error of the server says that the user may not publish there.
pub(crate) fn is_denial(error: &str, subject: &str) -> bool {
    let Some((head, rest)) = error.split_once('"') else { return false };
    let named = rest.split('"').next().unwrap_or_default();
    head.trim_end().eq_ignore_ascii_case("permissions violation for publish to") && named == subject
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
        let denials = Denials::new();
        let noting = async {
            denials.note("Permissions Violation for Publish to \"b\"");
            denials.note("Permissions Violation for Publish to \"a\"");
            std::future::pending::<()>().await;
        };
        let denied = denials.watch("a", noting).await;
        assert_eq!(denied, Err(Denied { subject: "a".to_owned() }));
        assert_eq!(denials.watch("a", async { 1 }).await, Ok(1));
    }
}
