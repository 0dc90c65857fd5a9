//! What the host knows of the guest's agent: whether it is present, silent, or refused.
//!
//! ```text
//!             a request                    no poll waits, and nothing came for SILENCE
//!   Awaited ─────────────► Present ──────────────────────────────────────────► Silent
//!      │ refused             ▲ ▲ a request                                        │ │ refused
//!      ▼                     │ └──────────────────────────────────────────────────┘ ▼
//!   NoSession, Claimed ──────┘ an authorized request                NoSession, Claimed
//! ```
//!
//! [`Watch`] decides, and takes the time as an argument. Only a guest that has polled can become
//! silent: one that sends only its log and its result may send nothing for hours. A poll that waits
//! is a sign of life until it is answered, which takes 30 s at most.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use metaservice_private::lock;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// After how long without a request a guest that has polled is silent: the time of two polls.
pub const SILENCE: Duration = Duration::from_secs(60);

/// What the host knows of the guest's agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Contact {
    /// The agent has sent nothing yet.
    #[default]
    Awaited,
    /// The agent has sent a request, and is not silent.
    Present,
    /// The agent has polled, and has sent nothing for [`SILENCE`]. It may come back.
    Silent,
    /// The agent is refused: the job needs a session, and an agent of version 1 has none.
    NoSession,
    /// The agent is refused: another one has claimed the job, and is no longer present.
    Claimed,
    /// A state that this version does not know.
    #[serde(other)]
    Other,
}

/// What was observed, and what follows from it.
#[derive(Debug, Default)]
struct Watch {
    /// When the last request or part of one arrived.
    heard: Option<Instant>,
    polled: bool,
    /// How many polls wait.
    polls: usize,
    refused: Option<Contact>,
    contact: Contact,
}

impl Watch {
    /// An authorized request, or more of one, arrived.
    fn heard(&mut self, now: Instant) {
        self.heard = Some(now);
        self.refused = None;
        self.contact = Contact::Present;
    }

    fn poll_begins(&mut self, now: Instant) {
        self.polled = true;
        self.polls += 1;
        self.heard(now);
    }

    /// A poll was answered, or its connection was lost.
    fn poll_ends(&mut self, now: Instant) {
        self.polls = self.polls.saturating_sub(1);
        self.heard = self.heard.max(Some(now));
    }

    /// A request was not authorized, for this reason.
    fn unauthorized(&mut self, now: Instant, why: Contact) {
        self.refused = Some(why);
        self.advance(now);
    }

    /// When the guest becomes silent, if nothing arrives before.
    fn deadline(&self) -> Option<Instant> {
        let may = self.polled && self.polls == 0 && self.contact == Contact::Present;
        self.heard.filter(|_| may).map(|heard| heard + SILENCE)
    }

    /// The state at this time.
    fn advance(&mut self, now: Instant) -> Contact {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.contact = Contact::Silent;
        }
        // Other agents may be refused while one is served.
        if self.contact != Contact::Present {
            self.contact = self.refused.unwrap_or(self.contact);
        }
        self.contact
    }
}

/// The watch of one service. It has no timer and no task: the caller of `changed` has both.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    watch: Mutex<Watch>,
    changed: Notify,
}

impl Contacts {
    /// An authorized request, or more of one, arrived.
    pub(crate) fn heard(&self) {
        self.with(|watch| watch.heard(now()));
    }

    /// A poll waits, as long as the returned value lives.
    pub(crate) fn poll(&self) -> Polling<'_> {
        self.with(|watch| watch.poll_begins(now()));
        Polling(self)
    }

    /// A request was not authorized, for this reason.
    pub(crate) fn unauthorized(&self, why: Contact) {
        self.with(|watch| watch.unauthorized(now(), why));
    }

    /// The state now.
    pub(crate) fn get(&self) -> Contact {
        self.lock().advance(now())
    }

    /// Waits until the state differs from `before`.
    pub(crate) async fn changed(&self, before: Contact) -> Contact {
        loop {
            let changed = self.changed.notified();
            let (contact, deadline) = {
                let mut watch = self.lock();
                (watch.advance(now()), watch.deadline())
            };
            if contact != before {
                return contact;
            }
            let late = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = late => {}
            }
        }
    }

    fn with(&self, what: impl FnOnce(&mut Watch)) {
        let mut watch = self.lock();
        let before = (watch.contact, watch.deadline().is_some());
        what(&mut watch);
        // A later deadline needs no wake-up: the waiter looks again when the old one is due.
        let changed = before != (watch.contact, watch.deadline().is_some());
        drop(watch);
        if changed {
            self.changed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watch> {
        // Nothing under the lock can panic half-way.
        lock(&self.watch)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A poll that waits.
#[derive(Debug)]
pub(crate) struct Polling<'a>(&'a Contacts);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.with(|watch| watch.poll_ends(now()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_guest_that_has_polled_is_silent_after_a_minute_and_comes_back() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        assert_eq!((watch.advance(start), watch.deadline()), (Contact::Awaited, None));
        watch.poll_begins(start);
        assert_eq!(watch.deadline(), None, "it waits for the host");
        assert_eq!(watch.advance(start + 100 * SILENCE), Contact::Present);
        watch.poll_ends(start + SECOND);
        assert_eq!(watch.deadline(), Some(start + SECOND + SILENCE));
        watch.heard(start + 2 * SECOND);
        assert_eq!(watch.advance(start + SILENCE + SECOND), Contact::Present);
        assert_eq!(watch.advance(start + SILENCE + 2 * SECOND), Contact::Silent);
        watch.heard(start + 3 * SILENCE);
        assert_eq!(watch.advance(start + 3 * SILENCE), Contact::Present);
    }

    #[test]
    fn a_guest_that_never_polls_is_never_silent() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.heard(start);
        assert_eq!(
            (watch.deadline(), watch.advance(start + 100 * SILENCE)),
            (None, Contact::Present)
        );
    }

    #[test]
    fn a_refused_request_counts_if_no_agent_is_present() {
        for why in [Contact::NoSession, Contact::Claimed] {
            let (mut watch, start) = (Watch::default(), Instant::now());
            watch.unauthorized(start, why);
            assert_eq!(watch.advance(start), why);
            watch.poll_begins(start);
            assert_eq!(watch.advance(start), Contact::Present);
            watch.unauthorized(start, why);
            assert_eq!(watch.advance(start), Contact::Present, "another process beside the agent");
            watch.poll_ends(start);
            assert_eq!(watch.advance(start + SILENCE), why, "no agent is present");
        }
    }

    proptest! {
        /// For each sequence of events, looking at the deadlines shows the same as looking often.
        #[test]
        fn a_deadline_is_when_it_changes(steps in proptest::collection::vec((0u8..5, 0u64..90), 0..40)) {
            let mut now = Instant::now();
            let mut watch = Watch::default();
            for (step, seconds) in steps {
                let deadline = watch.deadline();
                for _ in 0..seconds {
                    now += SECOND;
                    let before = watch.contact;
                    let after = watch.advance(now);
                    let due = deadline.is_some_and(|deadline| deadline <= now);
                    prop_assert_eq!(before != after, before == Contact::Present && due);
                }
                match step {
                    0 => watch.heard(now),
                    1 => watch.poll_begins(now),
                    2 if watch.polls > 0 => watch.poll_ends(now),
                    3 => watch.unauthorized(now, Contact::NoSession),
                    _ => {}
                }
                prop_assert!(watch.polls == 0 || watch.contact == Contact::Present);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_sees_each_change_once() {
        let contacts = Contacts::default();
        let start = tokio::time::Instant::now();
        let seen = async {
            let mut seen = Vec::new();
            for _ in 0..4 {
                let before = seen.last().map_or(Contact::Awaited, |(contact, _)| *contact);
                let contact = contacts.changed(before).await;
                seen.push((contact, start.elapsed().as_secs()));
            }
            seen
        };
        let guest = async {
            tokio::time::sleep(SECOND).await;
            contacts.unauthorized(Contact::NoSession);
            contacts.unauthorized(Contact::NoSession);
            tokio::time::sleep(SECOND).await;
            let poll = contacts.poll();
            tokio::time::sleep(10 * SILENCE).await;
            drop(poll);
            tokio::time::sleep(2 * SILENCE).await;
            contacts.heard();
        };
        let (seen, ()) = tokio::join!(seen, guest);
        let expected = [
            (Contact::NoSession, 1),
            (Contact::Present, 2),
            (Contact::Silent, 2 + 660),
            (Contact::Present, 2 + 720),
        ];
        assert_eq!(seen, expected);
    }
}
