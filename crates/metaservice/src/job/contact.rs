//! What the host knows of the guest's agent: whether it is present, silent, dead, or refused.
//!
//! ```text
//!             a request               no poll waits, and nothing came for
//!             or more of it           `agent_lost`             `agent_dead`
//!   Awaited ─────────────► Present ────────────────► Silent ────────────────► Dead
//!      │ refused             ▲ ▲ a request             │ │ refused             │
//!      ▼                     │ └───────────────────────┼─┼─────────────────────┘
//!   NoSession, Claimed ──────┘ an authorized request ◄─┘ ▼
//!                                               NoSession, Claimed
//!
//!   any of them ── no request of any kind for `no_guest` ──► NoGuest
//!   NoGuest ── an authorized request ──► Present
//!      └────── refused ──► NoSession, Claimed
//! ```
//!
//! [`Watch`] decides, and takes the time as an argument. Only a guest that has polled can become
//! silent or dead: one that sends only its log and its result may send nothing for hours. A poll
//! that waits is a sign of life until it is answered, which takes 30 s at most. The time in which
//! the machine is paused does not count.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use metaservice_private::lock;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::job::limits::Limits;

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
    /// The agent has polled, and has sent nothing for [`Limits::agent_lost`]. It may come back.
    Silent,
    /// The agent has polled, and has sent nothing for [`Limits::agent_dead`].
    Dead,
    /// No guest has sent a request of any kind for [`Limits::no_guest`].
    NoGuest,
    /// The agent is refused: the job needs a session, and an agent of version 1 has none.
    NoSession,
    /// The agent is refused: another one has claimed the job, and is no longer present.
    Claimed,
    /// A state that this version does not know.
    #[serde(other)]
    Other,
}

/// How long a guest may send nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Silences {
    lost: Duration,
    dead: Duration,
    no_guest: Option<Duration>,
}

/// What was observed, and what follows from it.
#[derive(Debug)]
struct Watch {
    silences: Silences,
    /// When the last authorized request or part of one arrived; the beginning before the first.
    heard: Instant,
    /// The same, of any request.
    requested: Instant,
    polled: bool,
    /// How many polls wait.
    polls: usize,
    /// Since when the machine has been paused.
    paused: Option<Instant>,
    refused: Option<Contact>,
    contact: Contact,
}

impl Watch {
    fn new(silences: Silences, now: Instant) -> Self {
        Self {
            silences,
            heard: now,
            requested: now,
            polled: false,
            polls: 0,
            paused: None,
            refused: None,
            contact: Contact::Awaited,
        }
    }

    /// An authorized request, or more of one, arrived.
    fn heard(&mut self, now: Instant) {
        (self.heard, self.requested) = (now, now);
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
        (self.heard, self.requested) = (self.heard.max(now), self.requested.max(now));
    }

    /// A request was not authorized, for this reason.
    fn unauthorized(&mut self, now: Instant, why: Contact) {
        self.requested = now;
        self.refused = Some(why);
        if self.contact == Contact::NoGuest {
            self.contact = why;
        }
        self.advance(now);
    }

    /// The machine is paused, or runs again.
    fn pause(&mut self, now: Instant, paused: bool) {
        if paused {
            self.advance(now);
            self.paused.get_or_insert(now);
        } else if let Some(since) = self.paused.take() {
            let pause = now.saturating_duration_since(since);
            for time in [&mut self.heard, &mut self.requested] {
                *time = (*time + pause).min(now);
            }
        }
    }

    /// When each kind of silence begins, if nothing arrives before.
    fn silences(&self) -> impl Iterator<Item = (Instant, Contact)> {
        let Silences { lost, dead, no_guest } = self.silences;
        let agent = [(self.heard + lost, Contact::Silent), (self.heard + dead, Contact::Dead)];
        let guest = no_guest.map(|no_guest| (self.requested + no_guest, Contact::NoGuest));
        let polled = self.polled;
        let all = agent.into_iter().filter(move |_| polled).chain(guest);
        let counts = self.polls == 0 && self.paused.is_none();
        all.filter(move |_| counts)
    }

    /// When the state changes, if nothing arrives before.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        self.silences().map(|(time, _)| time).filter(|time| *time > now).min()
    }

    /// The state at this time.
    fn advance(&mut self, now: Instant) -> Contact {
        // A later one of the list counts for more.
        let silence = self.silences().filter(|(time, _)| *time <= now).last();
        match (silence.map(|(_, silence)| silence), self.contact) {
            (Some(Contact::Silent), Contact::Present) => self.contact = Contact::Silent,
            (Some(end @ (Contact::Dead | Contact::NoGuest)), _) => self.contact = end,
            _ => {}
        }
        // Other agents may be refused while one is served.
        if !matches!(self.contact, Contact::Present | Contact::Dead | Contact::NoGuest) {
            self.contact = self.refused.unwrap_or(self.contact);
        }
        self.contact
    }
}

/// The watch of one service. It has no timer and no task: the caller of `changed` has both.
#[derive(Debug)]
pub(crate) struct Contacts {
    watch: Mutex<Watch>,
    changed: Notify,
}

impl Contacts {
    pub(crate) fn new(limits: &Limits) -> Self {
        let Limits { agent_lost: lost, agent_dead: dead, no_guest, .. } = *limits;
        let watch = Watch::new(Silences { lost, dead, no_guest }, now());
        Self { watch: Mutex::new(watch), changed: Notify::new() }
    }

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

    /// The machine is paused, or runs again.
    pub(crate) fn pause(&self, paused: bool) {
        self.with(|watch| watch.pause(now(), paused));
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
                let (mut watch, now) = (self.lock(), now());
                (watch.advance(now), watch.deadline(now))
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
        let before = (watch.contact, watch.silences().count());
        what(&mut watch);
        // A later deadline needs no wake-up: the waiter looks again when the old one is due.
        let changed = before != (watch.contact, watch.silences().count());
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
#[path = "contact/tests.rs"]
mod tests;
