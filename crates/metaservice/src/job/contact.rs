//! What the host knows of its guest's agent: whether it was heard, has gone silent, or is refused.
//!
//! ```text
//!             a request                    no poll waits, and nothing has come for SILENCE
//!   Awaited ─────────────► Present ──────────────────────────────────────────► Silent
//!      │ refused             ▲ ▲ a request                                        │ │ refused
//!      ▼                     │ └──────────────────────────────────────────────────┘ ▼
//!   NoSession, Claimed ──────┘ a request that is admitted               NoSession, Claimed
//! ```
//!
//! [`Watch`] decides, and takes the time as an argument. Only a guest that has polled can fall
//! silent: one that only sends its log and its result may have nothing to say for hours. A poll
//! that waits is a sign of life until it is answered, which takes 30 s at most.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use metaservice_private::lock;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// How long a guest that has polled may be silent before that is said: two polls.
pub const SILENCE: Duration = Duration::from_secs(60);

/// What is known of the guest's agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Contact {
    /// Nothing has come yet.
    #[default]
    Awaited,
    /// It has asked for something, and is not silent.
    Present,
    /// It has polled before, and nothing has come for [`SILENCE`]. It may come back.
    Silent,
    /// It is refused: the job needs a session, and an agent of version 1 has none.
    NoSession,
    /// It is refused: another agent has claimed the job, and is not heard any longer.
    Claimed,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

/// The facts, and what follows from them.
#[derive(Debug, Default)]
struct Watch {
    /// When the last sign of life came.
    heard: Option<Instant>,
    polled: bool,
    /// How many polls wait.
    polls: usize,
    refused: Option<Contact>,
    contact: Contact,
}

impl Watch {
    /// A request was admitted, or more of one has come.
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

    /// A request was refused: what that says of the agent.
    fn refused(&mut self, now: Instant, why: Contact) {
        self.refused = Some(why);
        self.advance(now);
    }

    /// When the guest is silent, if nothing comes until then.
    fn deadline(&self) -> Option<Instant> {
        let may = self.polled && self.polls == 0 && self.contact == Contact::Present;
        self.heard.filter(|_| may).map(|heard| heard + SILENCE)
    }

    /// What is known now.
    fn advance(&mut self, now: Instant) -> Contact {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.contact = Contact::Silent;
        }
        // Others may be refused beside an agent that is served.
        if self.contact != Contact::Present {
            self.contact = self.refused.unwrap_or(self.contact);
        }
        self.contact
    }
}

/// The watch of one service. It has no timer and no task: who wants to know brings both.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    watch: Mutex<Watch>,
    changed: Notify,
}

impl Contacts {
    /// A request was admitted, or more of one has come.
    pub(crate) fn heard(&self) {
        self.with(|watch| watch.heard(now()));
    }

    /// A poll waits for as long as what this returns is kept.
    pub(crate) fn poll(&self) -> Polling<'_> {
        self.with(|watch| watch.poll_begins(now()));
        Polling(self)
    }

    /// A request was refused.
    pub(crate) fn refused(&self, why: Contact) {
        self.with(|watch| watch.refused(now(), why));
    }

    /// What is known now.
    pub(crate) fn get(&self) -> Contact {
        self.lock().advance(now())
    }

    /// Waits until something else is known than `before`.
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
        // A deadline that moves is looked at when it was due.
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
    fn a_refusal_counts_where_nobody_is_served() {
        for why in [Contact::NoSession, Contact::Claimed] {
            let (mut watch, start) = (Watch::default(), Instant::now());
            watch.refused(start, why);
            assert_eq!(watch.advance(start), why);
            watch.poll_begins(start);
            assert_eq!(watch.advance(start), Contact::Present);
            watch.refused(start, why);
            assert_eq!(watch.advance(start), Contact::Present, "a stranger beside the agent");
            watch.poll_ends(start);
            assert_eq!(watch.advance(start + SILENCE), why, "it is the only one that is there");
        }
    }

    proptest! {
        /// Whatever comes, whoever looks often and whoever looks at the deadlines alone see the same.
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
                    3 => watch.refused(now, Contact::NoSession),
                    _ => {}
                }
                prop_assert!(watch.polls == 0 || watch.contact == Contact::Present);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_of_each_change_once() {
        let contacts = Contacts::default();
        let start = tokio::time::Instant::now();
        let told = async {
            let mut told = Vec::new();
            for _ in 0..4 {
                let before = told.last().map_or(Contact::Awaited, |(contact, _)| *contact);
                let contact = contacts.changed(before).await;
                told.push((contact, start.elapsed().as_secs()));
            }
            told
        };
        let guest = async {
            tokio::time::sleep(SECOND).await;
            contacts.refused(Contact::NoSession);
            contacts.refused(Contact::NoSession);
            tokio::time::sleep(SECOND).await;
            let poll = contacts.poll();
            tokio::time::sleep(10 * SILENCE).await;
            drop(poll);
            tokio::time::sleep(2 * SILENCE).await;
            contacts.heard();
        };
        let (told, ()) = tokio::join!(told, guest);
        let expected = [
            (Contact::NoSession, 1),
            (Contact::Present, 2),
            (Contact::Silent, 2 + 660),
            (Contact::Present, 2 + 720),
        ];
        assert_eq!(told, expected);
    }
}
