//! The subjects of tunnels.
//!
//! A client publishes only below `ms.open`, and a worker answers only to the inbox of a client. So
//! the right to publish to `ms.open.>` is the right to enter jobs.

use crate::name::JobId;

/// The longest name of a connection in characters.
const MAX_CONNECTION: usize = 64;

/// The subject of all connections to an attempt.
pub(super) fn attempt(id: &JobId, attempt: u32) -> String {
    format!("ms.open.{id}.{attempt}.*")
}

/// The subject of one connection. Its name is random: others cannot guess it.
pub(super) fn connection(id: &JobId, attempt: u32) -> String {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the system has random bytes");
    format!("ms.open.{id}.{attempt}.{}", metaservice_private::hex(&random))
}

/// The name of the connection in a subject, if it has a valid one.
pub(crate) fn name(subject: &str) -> Option<&str> {
    let name = subject.rsplit('.').next()?;
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_plain && (1..=MAX_CONNECTION).contains(&name.len())).then_some(name)
}

/// Whether a worker may answer there: a client must not make it write to a bucket.
pub(crate) fn is_inbox(subject: &str) -> bool {
    subject.starts_with("_INBOX") && !subject.contains(['*', '>'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_a_random_name_below_its_attempt() {
        let id: JobId = "a-1".parse().unwrap();
        let (first, second) = (connection(&id, 2), connection(&id, 2));
        assert_ne!(first, second);
        assert_eq!(name(&first).unwrap().len(), 32);
        assert_eq!(first.rsplit_once('.').unwrap().0, "ms.open.a-1.2");
        for wrong in ["ms.open.a.1.", "ms.open.a.1.b-c", &format!("x.{}", "a".repeat(65))] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_worker_answers_only_to_inboxes() {
        assert!(is_inbox("_INBOX.abc.1") && is_inbox("_INBOX_user.abc"));
        for wrong in ["$KV.ms_jobs.job.a.1", "ms.log.a.1", "_INBOX.>", "_INBOX.*", ""] {
            assert!(!is_inbox(wrong), "{wrong}");
        }
    }
}
