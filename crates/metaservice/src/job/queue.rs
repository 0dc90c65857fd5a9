//! Which action goes to which poll, and when each gives up: without I/O, without a clock.
//!
//! ```text
//!            submit                 a poll waits             answer written
//!   (none) ─────────► Queued ─────────────────► Offered ─────────────────► Delivered
//!                       ▲  │ pickup timeout        │ poll lost                │  ▲
//!                       │  ▼                       │                   reply  │  │ reply refused
//!                       │ Expired(Pickup)          │                          ▼  │
//!                       └──────────────────────────┘   reply              Replying ──► finish
//!                                                  Offered ──► Replying
//! ```
//!
//! An action that version 1 does not have goes to a poll that has announced it; if polls wait
//! and none of them has, it is over at once as unsupported, and the next one has its turn.
//!
//! Every state but `Replying` has a deadline; in `Replying` it is the transport that
//! watches for a stall. [`Queue::withdraw`] leaves from any state. An action whose poll
//! is lost before its answer was written goes back to the *front* of the queue, so it is
//! neither lost nor overtaken, and since a poll is answered at most once it is never in
//! two hands.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use metaservice_protocol::limits::{PICKUP_TIMEOUT, POLL_TIMEOUT, REPLY_TIMEOUT};
use metaservice_protocol::{
    Action, ActionDescription, ActionId, ActionRequest, Capabilities, Capability,
};

/// The name of one waiting poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PollId(u64);

/// What an action was waiting for when its time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// A poll of the guest's that takes it.
    Pickup,
    /// The start of the guest's reply.
    Reply,
}

/// What the queue has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Answer this poll with this action, or with `none`.
    Answer(PollId, Option<Action>),
    /// Tell whoever submitted this action that its time ran out.
    Expire(ActionId, Stage),
    /// Tell whoever submitted this action that the guest that polls cannot do it.
    Unsupported(ActionId, Capability),
}

/// Why a reply cannot be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No such action is pending.
    Unknown,
    /// The action is pending, but is replied to by another method.
    WrongMethod,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Queued,
    Offered(PollId),
    Delivered,
    Replying,
}

#[derive(Debug)]
struct Entry {
    request: ActionRequest,
    state: State,
    deadline: Instant,
}

/// The pending actions and the waiting polls of one service.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: HashMap<ActionId, Entry>,
    /// Actions in state `Queued`, in the order in which they are handed out.
    queued: VecDeque<ActionId>,
    /// Polls without an answer, oldest first, with the end of their patience.
    polls: VecDeque<(PollId, Instant, Capabilities)>,
    next_poll: u64,
    /// No poll waits any longer.
    stopped: bool,
    decisions: VecDeque<Decision>,
}

impl Queue {
    /// Queues an action for the next poll. Ids are never used twice.
    pub(crate) fn submit(&mut self, now: Instant, action: Action) {
        let Action { id, request } = action;
        let deadline = now + PICKUP_TIMEOUT;
        self.entries.insert(id.clone(), Entry { request, state: State::Queued, deadline });
        self.queued.push_back(id);
        self.match_up();
    }

    /// A guest polls that can do these things beyond version 1.
    pub(crate) fn poll(&mut self, now: Instant, capabilities: Capabilities) -> PollId {
        let poll = PollId(self.next_poll);
        self.next_poll += 1;
        if self.stopped {
            self.decisions.push_back(Decision::Answer(poll, None));
            return poll;
        }
        self.polls.push_back((poll, now + POLL_TIMEOUT, capabilities));
        self.match_up();
        poll
    }

    /// A poll's connection is gone before its answer was written.
    pub(crate) fn poll_lost(&mut self, poll: PollId) {
        self.polls.retain(|(waiting, ..)| *waiting != poll);
        let offered = self.entries.iter().find(|(_, e)| e.state == State::Offered(poll));
        if let Some(id) = offered.map(|(id, _)| id.clone()) {
            self.set_state(&id, State::Queued);
            self.queued.push_front(id);
            self.match_up();
        }
    }

    /// A poll's answer has been written.
    pub(crate) fn poll_answered(&mut self, now: Instant, poll: PollId) {
        // An answer of `none` offers nothing, and a quick reply may have come first.
        let offered = self.entries.values_mut().find(|e| e.state == State::Offered(poll));
        if let Some(entry) = offered {
            entry.state = State::Delivered;
            entry.deadline = now + REPLY_TIMEOUT;
        }
    }

    /// A reply to `id` begins.
    pub(crate) fn reply(
        &mut self,
        id: &ActionId,
        method: &str,
    ) -> Result<ActionDescription, Refusal> {
        let entry = self.entries.get_mut(id).ok_or(Refusal::Unknown)?;
        if !matches!(entry.state, State::Offered(_) | State::Delivered) {
            return Err(Refusal::Unknown);
        }
        if !entry.request.kind().is_replied_by(method) {
            return Err(Refusal::WrongMethod);
        }
        entry.state = State::Replying;
        Ok(entry.request.description())
    }

    /// The reply that had begun is not one for this action; the guest may try again
    /// until the action's first deadline.
    /// `false` when it is over.
    pub(crate) fn reply_refused(&mut self, id: &ActionId) -> bool {
        self.set_state(id, State::Delivered)
    }

    /// The action is over: answered, failed, or nobody waits for it any longer.
    pub(crate) fn withdraw(&mut self, id: &ActionId) {
        if self.entries.remove(id).is_some_and(|entry| entry.state == State::Queued) {
            self.queued.retain(|queued| queued != id);
        }
    }

    /// Answers every waiting poll with `none`, and every later one at once.
    pub(crate) fn stop_pollers(&mut self) {
        self.stopped = true;
        let polls = self.polls.drain(..);
        self.decisions.extend(polls.map(|(poll, ..)| Decision::Answer(poll, None)));
    }

    /// When [`advance`](Self::advance) has something to do for this action.
    pub(crate) fn deadline(&self, id: &ActionId) -> Option<Instant> {
        let entry = self.entries.get(id)?;
        (entry.state != State::Replying).then_some(entry.deadline)
    }

    /// Time has passed.
    pub(crate) fn advance(&mut self, now: Instant) {
        while let Some((poll, ..)) = self.polls.pop_front_if(|(_, until, _)| *until <= now) {
            self.decisions.push_back(Decision::Answer(poll, None));
        }
        let is_late = |e: &Entry| e.state != State::Replying && e.deadline <= now;
        let late: Vec<ActionId> =
            self.entries.iter().filter(|(_, e)| is_late(e)).map(|(id, _)| id.clone()).collect();
        for id in late {
            let stage = match self.entries.get(&id).map(|entry| entry.state) {
                Some(State::Queued | State::Offered(_)) | None => Stage::Pickup,
                Some(State::Delivered | State::Replying) => Stage::Reply,
            };
            self.withdraw(&id);
            self.decisions.push_back(Decision::Expire(id, stage));
        }
    }

    /// The next decision that has not been carried out.
    pub(crate) fn next_decision(&mut self) -> Option<Decision> {
        self.decisions.pop_front()
    }

    fn match_up(&mut self) {
        while !self.polls.is_empty()
            && let Some(id) = self.queued.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let needs = entry.request.capability();
            let can = |capabilities: Capabilities| needs.is_none_or(|need| capabilities.has(need));
            let place = self.polls.iter().position(|(.., capabilities)| can(*capabilities));
            if let Some((poll, ..)) = place.and_then(|place| self.polls.remove(place)) {
                entry.state = State::Offered(poll);
                let action = Action { id, request: entry.request.clone() };
                self.decisions.push_back(Decision::Answer(poll, Some(action)));
            } else if let Some(need) = needs {
                self.entries.remove(&id);
                self.decisions.push_back(Decision::Unsupported(id, need));
            }
        }
    }

    fn set_state(&mut self, id: &ActionId, state: State) -> bool {
        self.entries.get_mut(id).map(|entry| entry.state = state).is_some()
    }
}

#[cfg(test)]
#[path = "queue/tests.rs"]
mod tests;
