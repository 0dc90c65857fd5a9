//! The actions in flight: polls that wait for an action, and callers that wait for a reply.
//!
//! One short lock holds the [`Queue`] and the channels of both. A waiting future has its own timer,
//! and calls [`Actions::advance`] when it fires. So a service without a pending action has neither
//! a timer nor a task.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::ws::WebSocket;
use bytes::Bytes;
use metaservice_private::lock;
use metaservice_protocol::limits::POLL_TIMEOUT;
use metaservice_protocol::shell::StreamProtocol;
use metaservice_protocol::{
    Action, ActionDescription, ActionId, Capabilities, Capability, Failure, Files,
};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::job::artifact::Artifact;
use crate::job::body::Incoming;
use crate::job::error::TransportError;
use crate::job::queue::{Decision, PollId, Queue, ReplyError, Stage};
use crate::job::session::Authorization;

/// The result of one attempt at an action.
pub(crate) type Attempt = Result<Received, AttemptError>;

/// A received reply. It is decoded by the [`ReplyKind`](metaservice_protocol::ReplyKind) of its
/// action, which selects the variant.
#[derive(Debug)]
pub(crate) enum Received {
    Artifact(Artifact),
    Files(Files),
    Done,
    Json(Bytes),
    /// A body that the caller reads while it arrives.
    Body(Box<Incoming>),
    Stream(Box<WebSocket>, StreamProtocol, Authorization),
}

impl Received {
    /// What it is, for the error of a caller that got another reply than its action has.
    pub(crate) const fn unexpected(&self) -> &'static str {
        match self {
            Self::Artifact(_) => "an artifact as the reply to another action",
            Self::Files(_) => "a list of files as the reply to another action",
            Self::Done => "an empty reply to another action",
            Self::Json(_) => "a JSON value as the reply to another action",
            Self::Body(_) => "a body as the reply to another action",
            Self::Stream(..) => "a stream as the reply to another action",
        }
    }
}

/// Why an attempt has no reply.
#[derive(Debug)]
pub(crate) enum AttemptError {
    /// The agent that polls lacks this capability.
    Unsupported(Capability),
    /// The agent refuses the action.
    Refused(Failure),
    /// An agent of version 1 has no such file.
    NoFile,
    /// The host cannot store the file.
    Storage(io::Error),
    /// No poll or no reply came in time.
    TimedOut(Stage),
    Transport(TransportError),
    /// The reply is not valid, for this reason.
    Invalid(String),
    /// The service was shut down.
    Terminated,
}

impl From<TransportError> for AttemptError {
    fn from(cause: TransportError) -> Self {
        Self::Transport(cause)
    }
}

#[derive(Default)]
struct Waiting {
    queue: Queue,
    polls: HashMap<PollId, oneshot::Sender<Option<Action>>>,
    callers: HashMap<ActionId, Caller>,
}

/// A caller that waits for the result of an attempt.
struct Caller {
    sender: oneshot::Sender<Attempt>,
    protocol: StreamProtocol,
    /// Notified when a reply was refused: the action has a deadline again.
    refused: Arc<Notify>,
    /// Why the last reply was refused.
    reason: Option<String>,
}

/// All pending actions and waiting polls of one service.
#[derive(Clone)]
pub(crate) struct Actions {
    waiting: Arc<Mutex<Waiting>>,
    terminated: watch::Receiver<bool>,
}

impl Actions {
    /// No action and no poll. When `terminated` becomes true, each action ends.
    pub(crate) fn new(terminated: watch::Receiver<bool>) -> Self {
        Self { waiting: Arc::default(), terminated }
    }

    /// Offers an action to the guest once and waits for the result. Dropping the future withdraws
    /// the action. A stream has stream protocol `protocol` or an earlier one.
    pub(crate) async fn submit(&self, action: Action, protocol: StreamProtocol) -> Attempt {
        let id = action.id.clone();
        let (sender, mut outcome) = oneshot::channel();
        let refused = Arc::new(Notify::new());
        {
            let mut waiting = self.lock();
            let caller = Caller { sender, protocol, refused: Arc::clone(&refused), reason: None };
            waiting.callers.insert(id.clone(), caller);
            waiting.queue.submit(now(), action);
            waiting.carry_out();
        }
        let _withdrawal = Withdrawal { actions: self, id: &id };
        let mut terminated = self.terminated.clone();
        loop {
            let deadline = self.lock().queue.deadline(&id);
            let late = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                outcome = &mut outcome => {
                    return outcome.unwrap_or(Err(TransportError::Closed.into()));
                }
                _ = terminated.wait_for(|terminated| *terminated) => {
                    return Err(AttemptError::Terminated);
                }
                () = late => self.advance(),
                () = refused.notified() => {}
            }
        }
    }

    /// Waits for the answer to one poll of an agent with these capabilities. Dropping the future
    /// loses the poll.
    pub(crate) async fn poll(&self, capabilities: Capabilities) -> PollReply {
        let (sender, mut action) = oneshot::channel();
        let poll = {
            let mut waiting = self.lock();
            let poll = waiting.queue.poll(now(), capabilities);
            waiting.polls.insert(poll, sender);
            waiting.carry_out();
            poll
        };
        let mut answer = PollReply { actions: self.clone(), poll: Some(poll), action: None };
        loop {
            tokio::select! {
                biased;
                action = &mut action => {
                    answer.action = action.unwrap_or_default();
                    return answer;
                }
                () = tokio::time::sleep(POLL_TIMEOUT) => self.advance(),
            }
        }
    }

    /// A reply begins.
    pub(crate) fn reply(&self, id: &ActionId, method: &str) -> Result<Reply, ReplyError> {
        let mut waiting = self.lock();
        let description = waiting.queue.reply(id, method)?;
        let caller = waiting.callers.remove(id).ok_or(ReplyError::Unknown)?;
        Ok(Reply { actions: self.clone(), id: id.clone(), description, caller: Some(caller) })
    }

    /// Answers each poll with `none`, those that wait and later ones.
    pub(crate) fn stop_pollers(&self) {
        let mut waiting = self.lock();
        waiting.queue.stop_pollers();
        waiting.carry_out();
    }

    fn advance(&self) {
        let mut waiting = self.lock();
        waiting.queue.advance(now());
        waiting.carry_out();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing under the lock can panic half-way: a poisoned lock is as good as a whole one.
        lock(&self.waiting)
    }
}

impl Waiting {
    fn carry_out(&mut self) {
        while let Some(decision) = self.queue.next_decision() {
            match decision {
                Decision::Answer(poll, action) => {
                    let waiter = self.polls.remove(&poll);
                    if waiter.is_none_or(|waiter| waiter.send(action).is_err()) {
                        self.queue.poll_lost(poll);
                    }
                }
                Decision::Expire(id, stage) => {
                    if let Some(caller) = self.callers.remove(&id) {
                        // If the guest has replied, the reason of the refusal says more.
                        let error = match caller.reason {
                            Some(reason) => AttemptError::Invalid(reason),
                            None => AttemptError::TimedOut(stage),
                        };
                        let _ = caller.sender.send(Err(error));
                    }
                }
                Decision::Unsupported(id, capability) => {
                    if let Some(caller) = self.callers.remove(&id) {
                        let _ = caller.sender.send(Err(AttemptError::Unsupported(capability)));
                    }
                }
            }
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Withdraws an action when its caller is dropped. After the action's end this changes nothing.
struct Withdrawal<'a> {
    actions: &'a Actions,
    id: &'a ActionId,
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        let mut waiting = self.actions.lock();
        waiting.queue.withdraw(self.id);
        waiting.callers.remove(self.id);
    }
}

/// The answer to a poll, on its way out. Until [`written`](Self::written) is called it can be lost:
/// then its action goes to the next poll.
pub(crate) struct PollReply {
    actions: Actions,
    poll: Option<PollId>,
    action: Option<Action>,
}

impl PollReply {
    /// The action, if there is one.
    pub(crate) fn action(&self) -> Option<&Action> {
        self.action.as_ref()
    }

    /// The answer has left the host.
    pub(crate) fn written(mut self) {
        if let Some(poll) = self.poll.take() {
            self.actions.lock().queue.poll_answered(now(), poll);
        }
    }
}

impl Drop for PollReply {
    fn drop(&mut self) {
        if let Some(poll) = self.poll {
            let mut waiting = self.actions.lock();
            waiting.polls.remove(&poll);
            waiting.queue.poll_lost(poll);
            waiting.carry_out();
        }
    }
}

/// A reply that has begun. Dropping it before its end counts as a broken connection.
pub(crate) struct Reply {
    actions: Actions,
    id: ActionId,
    description: ActionDescription,
    caller: Option<Caller>,
}

impl Reply {
    /// The latest stream protocol that a stream may have.
    pub(crate) fn protocol(&self) -> StreamProtocol {
        self.caller.as_ref().map_or_else(StreamProtocol::default, |caller| caller.protocol)
    }

    /// What the protocol says about this action.
    pub(crate) const fn description(&self) -> ActionDescription {
        self.description
    }

    /// Gives the caller the result. Returns `false` if the caller is gone.
    pub(crate) fn finish(mut self, outcome: Attempt) -> bool {
        self.actions.lock().queue.withdraw(&self.id);
        self.caller.take().is_some_and(|caller| caller.sender.send(outcome).is_ok())
    }

    /// Refuses the reply: the guest may try again. If it does not, `reason` is why the action
    /// fails.
    pub(crate) fn refuse_for(mut self, reason: &str) {
        if let Some(caller) = &mut self.caller {
            caller.reason = Some(reason.to_owned());
        }
        self.refuse();
    }

    /// Refuses the reply: the guest may try again.
    pub(crate) fn refuse(mut self) {
        let Some(caller) = self.caller.take() else { return };
        let mut waiting = self.actions.lock();
        // Not if the caller has withdrawn the action.
        if waiting.queue.reply_refused(&self.id) {
            // During the reply the caller waited without a timer.
            caller.refused.notify_one();
            waiting.callers.insert(self.id.clone(), caller);
            waiting.queue.advance(now());
            waiting.carry_out();
        }
    }

    /// Completes when the caller is gone.
    pub(crate) async fn abandoned(&mut self) {
        match &mut self.caller {
            Some(caller) => caller.sender.closed().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(caller) = self.caller.take() {
            self.actions.lock().queue.withdraw(&self.id);
            let _ = caller.sender.send(Err(TransportError::Closed.into()));
        }
    }
}
