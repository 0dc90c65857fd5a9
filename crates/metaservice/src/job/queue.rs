//! Decides which action goes to which poll, and when each times out. It has no I/O and no clock.
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
//! An action that needs a capability goes to a poll whose agent has announced it. If polls wait and
//! none of their agents has, the action ends at once as unsupported.
//!
//! Each state but `Replying` has a deadline; in `Replying` the transport watches for a stall.
//! [`Queue::withdraw`] removes an action in any state. If a poll is lost before its answer was
//! written, its action returns to the *front* of the queue, so it is neither lost nor overtaken. A
//! poll is answered once at most, so no two agents get the same action.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use metaservice_protocol::limits::{PICKUP_TIMEOUT, POLL_TIMEOUT, REPLY_TIMEOUT};
use metaservice_protocol::{
    Action, ActionDescription, ActionId, ActionRequest, Capabilities, Capability,
};

/// The id of one waiting poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PollId(u64);

/// What an action waited for when it timed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// A poll of the guest.
    Pickup,
    /// The beginning of the guest's reply.
    Reply,
}

/// A decision of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Answer this poll with this action, or with `none`.
    Answer(PollId, Option<Action>),
    /// The action has timed out.
    Expire(ActionId, Stage),
    /// No polling agent has the capability that the action needs.
    Unsupported(ActionId, Capability),
}

/// Why a reply is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyError {
    /// No such action is pending.
    Unknown,
    /// The action is pending, but its reply has another method.
    WrongMethod,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PendingState {
    Queued,
    Offered(PollId),
    Delivered,
    Replying,
}

#[derive(Debug)]
struct Pending {
    request: ActionRequest,
    state: PendingState,
    deadline: Instant,
}

/// The pending actions and the waiting polls of one service.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: HashMap<ActionId, Pending>,
    /// Actions in state `Queued`, in the order of delivery.
    queued: VecDeque<ActionId>,
    /// Polls without an answer, oldest first, with their deadlines.
    polls: VecDeque<(PollId, Instant, Capabilities)>,
    next_poll: u64,
    /// Each poll is answered with `none`.
    stopped: bool,
    decisions: VecDeque<Decision>,
}

impl Queue {
    /// Queues an action for the next poll. Each id is used once.
    pub(crate) fn submit(&mut self, now: Instant, action: Action) {
        let Action { id, request } = action;
        let deadline = now + PICKUP_TIMEOUT;
        self.entries.insert(id.clone(), Pending { request, state: PendingState::Queued, deadline });
        self.queued.push_back(id);
        self.match_up();
    }

    /// An agent with these capabilities polls.
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

    /// A poll's connection ended before its answer was written.
    pub(crate) fn poll_lost(&mut self, poll: PollId) {
        self.polls.retain(|(waiting, ..)| *waiting != poll);
        let offered = self.entries.iter().find(|(_, e)| e.state == PendingState::Offered(poll));
        if let Some(id) = offered.map(|(id, _)| id.clone()) {
            self.set_state(&id, PendingState::Queued);
            self.queued.push_front(id);
            self.match_up();
        }
    }

    /// A poll's answer has been written.
    pub(crate) fn poll_answered(&mut self, now: Instant, poll: PollId) {
        // The answer may be `none`, and a fast reply may have arrived before this call.
        let offered = self.entries.values_mut().find(|e| e.state == PendingState::Offered(poll));
        if let Some(entry) = offered {
            entry.state = PendingState::Delivered;
            entry.deadline = now + REPLY_TIMEOUT;
        }
    }

    /// A reply to `id` begins.
    pub(crate) fn reply(
        &mut self,
        id: &ActionId,
        method: &str,
    ) -> Result<ActionDescription, ReplyError> {
        let entry = self.entries.get_mut(id).ok_or(ReplyError::Unknown)?;
        if !matches!(entry.state, PendingState::Offered(_) | PendingState::Delivered) {
            return Err(ReplyError::Unknown);
        }
        if !entry.request.kind().is_replied_by(method) {
            return Err(ReplyError::WrongMethod);
        }
        entry.state = PendingState::Replying;
        Ok(entry.request.description())
    }

    /// The reply was refused; the guest may try again until the action's first deadline. Returns
    /// `false` if the action has ended.
    pub(crate) fn reply_refused(&mut self, id: &ActionId) -> bool {
        self.set_state(id, PendingState::Delivered)
    }

    /// The action has ended: with a reply, with an error, or because its caller is gone.
    pub(crate) fn withdraw(&mut self, id: &ActionId) {
        if self.entries.remove(id).is_some_and(|entry| entry.state == PendingState::Queued) {
            self.queued.retain(|queued| queued != id);
        }
    }

    /// Answers each poll with `none`, those that wait and later ones.
    pub(crate) fn stop_pollers(&mut self) {
        self.stopped = true;
        let polls = self.polls.drain(..);
        self.decisions.extend(polls.map(|(poll, ..)| Decision::Answer(poll, None)));
    }

    /// When [`advance`](Self::advance) must be called for this action.
    pub(crate) fn deadline(&self, id: &ActionId) -> Option<Instant> {
        let entry = self.entries.get(id)?;
        (entry.state != PendingState::Replying).then_some(entry.deadline)
    }

    /// Time has passed.
    pub(crate) fn advance(&mut self, now: Instant) {
        while let Some((poll, ..)) = self.polls.pop_front_if(|(_, until, _)| *until <= now) {
            self.decisions.push_back(Decision::Answer(poll, None));
        }
        let is_late = |e: &Pending| e.state != PendingState::Replying && e.deadline <= now;
        let late: Vec<ActionId> =
            self.entries.iter().filter(|(_, e)| is_late(e)).map(|(id, _)| id.clone()).collect();
        for id in late {
            let stage = match self.entries.get(&id).map(|entry| entry.state) {
                Some(PendingState::Queued | PendingState::Offered(_)) | None => Stage::Pickup,
                Some(PendingState::Delivered | PendingState::Replying) => Stage::Reply,
            };
            self.withdraw(&id);
            self.decisions.push_back(Decision::Expire(id, stage));
        }
    }

    /// The next decision to carry out.
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
                entry.state = PendingState::Offered(poll);
                let action = Action { id, request: entry.request.clone() };
                self.decisions.push_back(Decision::Answer(poll, Some(action)));
            } else if let Some(need) = needs {
                self.entries.remove(&id);
                self.decisions.push_back(Decision::Unsupported(id, need));
            }
        }
    }

    fn set_state(&mut self, id: &ActionId, state: PendingState) -> bool {
        self.entries.get_mut(id).map(|entry| entry.state = state).is_some()
    }
}

#[cfg(test)]
#[path = "queue/tests.rs"]
mod tests;
