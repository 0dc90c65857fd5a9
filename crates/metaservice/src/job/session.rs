//! Which agent may speak for the job: the first one that claims it.
//!
//! ```text
//!   open ──claim (a nonce)──► granted ──the secret is used──► settled
//!     │                         │ the same nonce again: the same grant
//!     │                         ▼ another nonce: an error
//!     │ ◄───── released ─────── (the host has given up the machine)
//!     └─ mode `Required`: nothing is served before a claim
//! ```
//!
//! An agent whose response was cut claims again with the same nonce. When it uses its secret it has
//! the response, and the job's secret variables are not given again.
//!
//! A request holds an [`Authorization`] while it is served. The authorization ends when another
//! agent claims the job and when the job is released; the request ends with it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use metaservice_private::lock;
use metaservice_protocol::{ActionId, SessionGrant};
use tokio::sync::watch;

use crate::job::persistence::PersistedSession;

/// Whether an agent has to claim the job before it is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionMode {
    /// Only the agent that has claimed the job is served.
    Required,
    /// Each agent is served until one claims the job; from then on only that one. An agent of
    /// version 1 cannot claim, and works.
    #[default]
    Claimed,
    /// There are no sessions.
    Off,
}

/// The claim of one job.
pub(crate) struct Session {
    mode: SessionMode,
    claim: Mutex<Claim>,
    /// Variables that only the agent that claims the job gets.
    secrets: BTreeMap<String, String>,
    /// Changes with each owner.
    owner: watch::Sender<u64>,
}

/// The right to speak for the job, until the job has another owner.
#[derive(Debug, Clone)]
pub(crate) struct Authorization(Option<watch::Receiver<u64>>);

impl Authorization {
    /// An authorization that does not end.
    pub(crate) const fn unlimited() -> Self {
        Self(None)
    }

    /// Completes when the authorization ends. Cancel safe.
    pub(crate) async fn ended(&mut self) {
        if let Some(owner) = &mut self.0
            && owner.changed().await.is_ok()
        {
            return;
        }
        // The job is gone: it cannot be claimed.
        std::future::pending::<()>().await;
    }
}

#[derive(Default)]
struct Claim {
    granted: Option<PersistedSession>,
    /// The secrets that the owner may not have received yet.
    secrets: BTreeMap<String, String>,
}

impl Session {
    /// A session; `granted` is the one of the state directory.
    pub(crate) fn new(
        mode: SessionMode,
        secrets: BTreeMap<String, String>,
        granted: Option<PersistedSession>,
    ) -> Self {
        // A command without its secrets is another command: only the owner may fetch it.
        let mode = if secrets.is_empty() { mode } else { SessionMode::Required };
        let claim = Claim { granted, secrets: secrets.clone() };
        Self { mode, claim: Mutex::new(claim), secrets, owner: watch::Sender::new(0) }
    }

    pub(crate) fn is_offered(&self) -> bool {
        self.mode != SessionMode::Off
    }

    /// Claims the job; `None` if another agent has it. `secret` makes a new secret.
    pub(crate) fn claim(
        &self,
        nonce: &ActionId,
        secret: impl FnOnce() -> String,
    ) -> Option<SessionGrant> {
        let mut claim = self.lock();
        let Claim { granted, secrets } = &mut *claim;
        let granted = granted.get_or_insert_with(|| {
            // Under the lock, so that no authorization is made for the owner before.
            self.owner.send_modify(|owner| *owner += 1);
            PersistedSession { nonce: nonce.clone(), secret: secret() }
        });
        let same = is_same(granted.nonce.as_str(), nonce.as_str());
        same.then(|| SessionGrant { secret: granted.secret.clone(), env: secrets.clone() })
    }

    /// Makes the job free for the next claim.
    pub(crate) fn release(&self) {
        let mut claim = self.lock();
        *claim = Claim { granted: None, secrets: self.secrets.clone() };
        self.owner.send_modify(|owner| *owner += 1);
    }

    /// The session that was granted, if one was.
    pub(crate) fn granted(&self) -> Option<PersistedSession> {
        self.lock().granted.clone()
    }

    /// Whether an agent has claimed the job.
    pub(crate) fn is_granted(&self) -> bool {
        self.lock().granted.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Claim> {
        lock(&self.claim)
    }

    /// Authorizes a request by the secret that it presents, if any.
    pub(crate) fn authorize(&self, presented: Option<&str>) -> Option<Authorization> {
        if self.mode == SessionMode::Off {
            return Some(Authorization::unlimited());
        }
        let mut claim = self.lock();
        let authorized = match &claim.granted {
            Some(granted) => presented.is_some_and(|secret| is_same(secret, &granted.secret)),
            None => self.mode == SessionMode::Claimed,
        };
        if authorized && claim.granted.is_some() {
            // The owner uses its secret, so it has the grant.
            claim.secrets.clear();
        }
        authorized.then(|| Authorization(Some(self.owner.subscribe())))
    }
}

/// Compares two secrets in a time that does not depend on where they differ.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    let differing = one.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differing) == 0 && one.len() == other.len()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn nonce(text: &str) -> ActionId {
        ActionId::parse(text).unwrap()
    }

    fn with(mode: SessionMode) -> Session {
        Session::new(mode, BTreeMap::new(), None)
    }

    fn authorizes(session: &Session, secret: Option<&str>) -> bool {
        session.authorize(secret).is_some()
    }

    fn has_ended(authorization: &mut Authorization) -> bool {
        authorization.ended().now_or_never().is_some()
    }

    #[test]
    fn an_authorization_ends_with_the_next_owner() {
        let session = with(SessionMode::Claimed);
        let mut stranger = session.authorize(None).unwrap();
        assert!(!has_ended(&mut stranger));
        session.claim(&nonce("a"), || "s".to_owned()).unwrap();
        assert!(has_ended(&mut stranger));
        let mut owner = session.authorize(Some("s")).unwrap();
        session.claim(&nonce("a"), String::new).unwrap();
        assert!(session.claim(&nonce("b"), String::new).is_none());
        assert!(!has_ended(&mut owner), "the job has the same owner");
        session.release();
        assert!(has_ended(&mut owner));
        assert!(!has_ended(&mut Authorization::unlimited()));
    }

    #[test]
    fn the_first_agent_to_claim_has_the_job_and_may_claim_again() {
        for mode in [SessionMode::Required, SessionMode::Claimed] {
            let session = with(mode);
            let open = mode == SessionMode::Claimed;
            assert_eq!((authorizes(&session, None), authorizes(&session, Some("?"))), (open, open));
            let grant = session.claim(&nonce("a"), || "s3cret".to_owned()).unwrap();
            assert_eq!(session.claim(&nonce("a"), || "other".to_owned()), Some(grant.clone()));
            assert_eq!(session.claim(&nonce("b"), || "other".to_owned()), None);
            assert!(authorizes(&session, Some(&grant.secret)));
            for other in [None, Some(""), Some("s3cre"), Some("s3cretX"), Some("S3cret")] {
                assert!(!authorizes(&session, other), "{other:?}");
            }
        }
    }

    #[test]
    fn secrets_are_given_until_the_owner_has_them() {
        let secrets = BTreeMap::from([("TOKEN".to_owned(), "t".to_owned())]);
        let session = Session::new(SessionMode::Claimed, secrets.clone(), None);
        assert!(!authorizes(&session, None), "only the owner gets them");
        for _ in 0..2 {
            assert_eq!(session.claim(&nonce("a"), || "s".to_owned()).unwrap().env, secrets);
        }
        assert!(authorizes(&session, Some("s")));
        assert!(session.claim(&nonce("a"), String::new).unwrap().env.is_empty());
    }

    #[test]
    fn a_released_job_is_claimed_like_a_new_one() {
        let secrets = BTreeMap::from([("TOKEN".to_owned(), "t".to_owned())]);
        let session = Session::new(SessionMode::Claimed, secrets.clone(), None);
        session.claim(&nonce("a"), || "s".to_owned()).unwrap();
        assert!(authorizes(&session, Some("s")));
        session.release();
        assert!(!authorizes(&session, Some("s")), "the owner before has no right any more");
        assert_eq!(session.claim(&nonce("b"), || "z".to_owned()).unwrap().env, secrets);
        assert_eq!(session.claim(&nonce("a"), || "s".to_owned()), None);
    }

    #[test]
    fn without_sessions_each_request_is_authorized() {
        assert!(authorizes(&with(SessionMode::Off), None) && !with(SessionMode::Off).is_offered());
    }
}
