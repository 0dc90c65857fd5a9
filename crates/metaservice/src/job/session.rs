//! Who in the guest may speak for the job: whoever claims it first.
//!
//! ```text
//!   open ──claim (a nonce)──► granted ──the secret is used──► settled
//!     │                         │ the same nonce again: the same grant
//!     │                         ▼ another nonce: refused, for ever
//!     │ ◄────── released ────── it: its machine was given up
//!     └─ mode `required`: nothing is served before
//! ```
//!
//! A claimant whose answer was cut asks again by the same nonce. Once it has used its secret it
//! has the answer, and what is given once is given no more.
//!
//! What was admitted before somebody claims the job, or before it is released, is admitted until
//! then: a request that has begun holds an [`Admitted`] and ends with it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use metaservice_private::lock;

use metaservice_protocol::{ActionId, SessionGrant};
use tokio::sync::watch;

use crate::job::persistence::PromisedSession;

/// Whether a guest's agent has to claim the service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SessionMode {
    /// Nothing is served to a guest that has not claimed it.
    Required,
    /// Everything is served until somebody claims it, and to nobody else afterwards. An agent of
    /// version 1, which never claims, works as ever.
    #[default]
    Claimed,
    /// There are no sessions.
    Off,
}

/// The claim of one job.
pub(crate) struct Session {
    mode: SessionMode,
    state: Mutex<State>,
    /// What a claimant gets.
    secrets: BTreeMap<String, String>,
    /// Counts the owners.
    owner: watch::Sender<u64>,
}

/// Leave to speak for the job, until it is somebody else's.
#[derive(Debug, Clone)]
pub(crate) struct Admitted(Option<watch::Receiver<u64>>);

impl Admitted {
    /// Leave that does not end.
    pub(crate) const fn always() -> Self {
        Self(None)
    }

    /// Completes when the leave ends. Can be dropped and called again.
    pub(crate) async fn over(&mut self) {
        if let Some(owner) = &mut self.0
            && owner.changed().await.is_ok()
        {
            return;
        }
        // Without the job there is nobody who could claim it.
        std::future::pending::<()>().await;
    }
}

#[derive(Default)]
struct State {
    granted: Option<PromisedSession>,
    /// Of what a claimant gets, what this one has not got for certain.
    secrets: BTreeMap<String, String>,
}

impl Session {
    /// A session, that `granted` already if it goes on.
    pub(crate) fn new(
        mode: SessionMode,
        secrets: BTreeMap<String, String>,
        granted: Option<PromisedSession>,
    ) -> Self {
        // What only a claimant gets cannot be left out for others.
        let mode = if secrets.is_empty() { mode } else { SessionMode::Required };
        let state = State { granted, secrets: secrets.clone() };
        Self { mode, state: Mutex::new(state), secrets, owner: watch::Sender::new(0) }
    }

    pub(crate) fn is_offered(&self) -> bool {
        self.mode != SessionMode::Off
    }

    /// Somebody claims the job; `None` when somebody else has it. `secret` makes a new secret.
    pub(crate) fn claim(
        &self,
        nonce: &ActionId,
        secret: impl FnOnce() -> String,
    ) -> Option<SessionGrant> {
        let mut state = lock(&self.state);
        let State { granted, secrets } = &mut *state;
        let granted = granted.get_or_insert_with(|| {
            // Under the lock: who is admitted has seen the owner that is there.
            self.owner.send_modify(|owner| *owner += 1);
            PromisedSession { nonce: nonce.clone(), secret: secret() }
        });
        let same = is_same(granted.nonce.as_str(), nonce.as_str());
        same.then(|| SessionGrant { secret: granted.secret.clone(), env: secrets.clone() })
    }

    /// It is nobody's again.
    pub(crate) fn release(&self) {
        let mut state = lock(&self.state);
        *state = State { granted: None, secrets: self.secrets.clone() };
        self.owner.send_modify(|owner| *owner += 1);
    }

    /// Whose it is.
    pub(crate) fn granted(&self) -> Option<PromisedSession> {
        lock(&self.state).granted.clone()
    }

    /// Whether it is somebody's.
    pub(crate) fn is_granted(&self) -> bool {
        lock(&self.state).granted.is_some()
    }

    /// Leave for a request with this secret, or none; `None` when it may not speak for the job.
    pub(crate) fn admit(&self, presented: Option<&str>) -> Option<Admitted> {
        if self.mode == SessionMode::Off {
            return Some(Admitted::always());
        }
        let mut state = lock(&self.state);
        let admitted = match &state.granted {
            Some(granted) => presented.is_some_and(|secret| is_same(secret, &granted.secret)),
            None => self.mode == SessionMode::Claimed,
        };
        if admitted && state.granted.is_some() {
            // Its owner has the grant.
            state.secrets.clear();
        }
        admitted.then(|| Admitted(Some(self.owner.subscribe())))
    }
}

/// Compares without telling by its time where two secrets differ.
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

    fn admits(session: &Session, secret: Option<&str>) -> bool {
        session.admit(secret).is_some()
    }

    /// Whether the leave has ended.
    fn is_over(admitted: &mut Admitted) -> bool {
        admitted.over().now_or_never().is_some()
    }

    #[test]
    fn what_was_admitted_ends_with_the_next_owner() {
        let session = with(SessionMode::Claimed);
        let mut stranger = session.admit(None).unwrap();
        assert!(!is_over(&mut stranger));
        session.claim(&nonce("a"), || "s".to_owned()).unwrap();
        assert!(is_over(&mut stranger));
        let mut owner = session.admit(Some("s")).unwrap();
        session.claim(&nonce("a"), String::new).unwrap();
        assert!(session.claim(&nonce("b"), String::new).is_none());
        assert!(!is_over(&mut owner), "it is the owner's as long as nobody else has it");
        session.release();
        assert!(is_over(&mut owner));
        assert!(!is_over(&mut Admitted::always()));
    }

    #[test]
    fn the_first_claimant_has_it_and_may_ask_again() {
        for mode in [SessionMode::Required, SessionMode::Claimed] {
            let session = with(mode);
            let open = mode == SessionMode::Claimed;
            assert_eq!((admits(&session, None), admits(&session, Some("?"))), (open, open));
            let grant = session.claim(&nonce("a"), || "s3cret".to_owned()).unwrap();
            assert_eq!(session.claim(&nonce("a"), || "other".to_owned()), Some(grant.clone()));
            assert_eq!(session.claim(&nonce("b"), || "other".to_owned()), None);
            assert!(admits(&session, Some(&grant.secret)));
            for other in [None, Some(""), Some("s3cre"), Some("s3cretX"), Some("S3cret")] {
                assert!(!admits(&session, other), "{other:?}");
            }
        }
    }

    #[test]
    fn secrets_are_given_until_the_claimant_has_them() {
        let secrets = BTreeMap::from([("TOKEN".to_owned(), "t".to_owned())]);
        let session = Session::new(SessionMode::Claimed, secrets.clone(), None);
        assert!(!admits(&session, None), "they are for a claimant alone");
        for _ in 0..2 {
            assert_eq!(session.claim(&nonce("a"), || "s".to_owned()).unwrap().env, secrets);
        }
        assert!(admits(&session, Some("s")));
        assert!(session.claim(&nonce("a"), String::new).unwrap().env.is_empty());
    }

    #[test]
    fn a_released_job_is_claimed_as_if_nobody_had() {
        let secrets = BTreeMap::from([("TOKEN".to_owned(), "t".to_owned())]);
        let session = Session::new(SessionMode::Claimed, secrets.clone(), None);
        session.claim(&nonce("a"), || "s".to_owned()).unwrap();
        assert!(admits(&session, Some("s")));
        session.release();
        assert!(!admits(&session, Some("s")), "the one before is a stranger now");
        assert_eq!(session.claim(&nonce("b"), || "z".to_owned()).unwrap().env, secrets);
        assert_eq!(session.claim(&nonce("a"), || "s".to_owned()), None);
    }

    #[test]
    fn without_sessions_everybody_is_admitted() {
        assert!(admits(&with(SessionMode::Off), None) && !with(SessionMode::Off).is_offered());
    }
}
