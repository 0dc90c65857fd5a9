//! The waiting ends of the [`Queue`]: polls that want an action, callers that want an outcome.
//!
//! One short lock holds the queue and the channels of those who wait. Whoever waits
//! brings its own timer and calls [`Actions::advance`] when it fires, so a service
//! without anything pending has no timer and no task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use metaservice_private::lock;

use axum::extract::ws::WebSocket;
use bytes::Bytes;
use metaservice_protocol::limits::POLL_TIMEOUT;
use metaservice_protocol::shell::StreamProtocol;
use metaservice_protocol::{
    Action, ActionDescription, ActionId, Capabilities, Capability, Failure, Files,
};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::handle::actions::Incoming;
use crate::handle::error::{ActionError, ArtifactError, TransportError};
use crate::job::artifact::Artifact;
use crate::job::queue::{Decision, PollId, Queue, Refusal};
use crate::job::session::Admitted;

/// The result of one attempt at an action.
pub(crate) type Attempt = Result<Received, AttemptError>;

/// A reply, as the connection that carried it received it. Which one belongs to an action is in
/// the protocol's table, as [`ReplyKind`](metaservice_protocol::ReplyKind).
#[derive(Debug)]
pub(crate) enum Received {
    Artifact(Result<Artifact, ArtifactError>),
    Files(Files),
    Done,
    Json(Bytes),
    /// A body that the caller reads while it arrives.
    Body(Box<Incoming>),
    Stream(Box<WebSocket>, StreamProtocol, Admitted),
}

/// Why an attempt has no reply.
#[derive(Debug)]
pub(crate) enum AttemptError {
    /// The agent that polls lacks this capability.
    Unsupported(Capability),
    /// The agent refuses the action.
    Refused(Failure),
    /// Any action can fail in these ways.
    Action(ActionError),
}

impl From<ActionError> for AttemptError {
    fn from(error: ActionError) -> Self {
        Self::Action(error)
    }
}

impl From<TransportError> for AttemptError {
    fn from(cause: TransportError) -> Self {
        Self::Action(ActionError::Transport(cause))
    }
}

impl From<AttemptError> for ActionError {
    /// The error of an action of version 1, which needs no capability and cannot be refused.
    fn from(error: AttemptError) -> Self {
        match error {
            AttemptError::Action(error) => error,
            AttemptError::Unsupported(_) => Self::Unexpected("an unsupported action of version 1"),
            AttemptError::Refused(_) => Self::Unexpected("a refused action of version 1"),
        }
    }
}

impl Received {
    /// The error of a caller that got another reply than its action has.
    pub(crate) fn unexpected(self) -> ActionError {
        ActionError::Unexpected(match self {
            Self::Artifact(_) => "an artifact as the reply to another action",
            Self::Files(_) => "a list of files as the reply to another action",
            Self::Done => "an empty reply to another action",
            Self::Json(_) => "a JSON value as the reply to another action",
            Self::Body(_) => "a body as the reply to another action",
            Self::Stream(..) => "a stream as the reply to another action",
        })
    }
}

#[derive(Default)]
struct Waiting {
    queue: Queue,
    polls: HashMap<PollId, oneshot::Sender<Option<Action>>>,
    callers: HashMap<ActionId, Caller>,
}

/// Who waits for an outcome.
struct Caller {
    sender: oneshot::Sender<Attempt>,
    protocol: StreamProtocol,
    /// Told when a reply was refused: the action has a deadline again.
    refused: Arc<Notify>,
    /// Why the last reply was refused, if one was.
    reason: Option<String>,
}

/// All pending actions and waiting polls of one service.
#[derive(Clone)]
pub(crate) struct Actions {
    waiting: Arc<Mutex<Waiting>>,
    terminated: watch::Receiver<bool>,
}

impl Actions {
    /// No action and no poll. When `terminated` becomes true every action ends at once.
    pub(crate) fn new(terminated: watch::Receiver<bool>) -> Self {
        Self { waiting: Arc::default(), terminated }
    }

    /// Offers an action to the guest and waits for the outcome of this one attempt.
    /// Dropping the future withdraws the action.
    /// A stream that the guest dials for it is of this protocol at most.
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
                    return Err(ActionError::Terminated.into());
                }
                () = late => self.advance(),
                () = refused.notified() => {}
            }
        }
    }

    /// Waits for the answer to one poll of a guest that can do these things beyond version 1.
    /// Dropping the future is losing the poll.
    pub(crate) async fn poll(&self, capabilities: Capabilities) -> Answer {
        let (sender, mut action) = oneshot::channel();
        let poll = {
            let mut waiting = self.lock();
            let poll = waiting.queue.poll(now(), capabilities);
            waiting.polls.insert(poll, sender);
            waiting.carry_out();
            poll
        };
        let mut answer = Answer { actions: self.clone(), poll: Some(poll), action: None };
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
    pub(crate) fn reply(&self, id: &ActionId, method: &str) -> Result<Reply, Refusal> {
        let mut waiting = self.lock();
        let description = waiting.queue.reply(id, method)?;
        let caller = waiting.callers.remove(id).ok_or(Refusal::Unknown)?;
        Ok(Reply { actions: self.clone(), id: id.clone(), description, caller: Some(caller) })
    }

    /// Answers every waiting poll with `none`, and every later one at once.
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
                        // The guest has replied, if not as it should.
                        let error = match caller.reason {
                            Some(reason) => ActionError::Invalid(reason),
                            None => ActionError::TimedOut(stage),
                        };
                        let _ = caller.sender.send(Err(error.into()));
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

/// Takes an action back when its caller goes away; after its end it changes nothing.
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

/// The answer to a poll on its way out. Until [`written`](Self::written) is called it
/// can be lost: then its action goes to the next poll.
pub(crate) struct Answer {
    actions: Actions,
    poll: Option<PollId>,
    action: Option<Action>,
}

impl Answer {
    /// What the guest is told, if there is something to tell.
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

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(poll) = self.poll {
            let mut waiting = self.actions.lock();
            waiting.polls.remove(&poll);
            waiting.queue.poll_lost(poll);
            waiting.carry_out();
        }
    }
}

/// A reply that has begun. Dropping it unfinished is a broken transport.
pub(crate) struct Reply {
    actions: Actions,
    id: ActionId,
    description: ActionDescription,
    caller: Option<Caller>,
}

impl Reply {
    /// The most that a stream may be of.
    pub(crate) fn protocol(&self) -> StreamProtocol {
        self.caller.as_ref().map_or_else(StreamProtocol::default, |caller| caller.protocol)
    }

    /// What the protocol says about this action.
    pub(crate) const fn description(&self) -> ActionDescription {
        self.description
    }

    /// The outcome for the caller. `false` when the caller is gone.
    pub(crate) fn finish(mut self, outcome: Attempt) -> bool {
        self.actions.lock().queue.withdraw(&self.id);
        self.caller.take().is_some_and(|caller| caller.sender.send(outcome).is_ok())
    }

    /// This was no reply to the action; the guest may try again. If it does not, this is why the
    /// action has failed.
    pub(crate) fn refuse_for(mut self, reason: &str) {
        if let Some(caller) = &mut self.caller {
            caller.reason = Some(reason.to_owned());
        }
        self.refuse();
    }

    /// This was no reply to the action; the guest may try again.
    pub(crate) fn refuse(mut self) {
        let Some(caller) = self.caller.take() else { return };
        let mut waiting = self.actions.lock();
        // Not if its caller has withdrawn it meanwhile.
        if waiting.queue.reply_refused(&self.id) {
            // It has waited without a timer while the reply went on.
            caller.refused.notify_one();
            waiting.callers.insert(self.id.clone(), caller);
            waiting.queue.advance(now());
            waiting.carry_out();
        }
    }

    /// Completes when the caller no longer wants the outcome.
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
