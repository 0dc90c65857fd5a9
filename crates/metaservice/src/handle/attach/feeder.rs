//! Delivers the command's stdin to the guest.
//!
//! Owns the connections: it makes one after the other, until the guest wants no more or the job has
//! its result. The [`Input`] decides what is sent on each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metaservice_protocol::limits::REPLY_TIMEOUT;
use metaservice_protocol::shell::StreamProtocol;
use metaservice_protocol::{Action, ActionRequest, Attach, Failure, FailureCode, StreamFrom};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::handle::child::command::{Child, ExitStatus};
use crate::handle::child::first_line::{FirstLineError, first_line};
use crate::handle::child::socket::Socket;
use crate::handle::child::stream::ChildStdin;
use crate::handle::error::{ActionError, ChildError};
use crate::job::actions::{Actions, AttemptError, Received};
use crate::job::id::new_id;
use crate::job::input::{Input, Next, Over};
use crate::job::result::JobResult;
use crate::job::state::Job;

/// The delay before a connection after one that carried nothing. It doubles each time.
const FIRST_DELAY: Duration = Duration::from_millis(50);

/// The largest delay.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// How long the guest may take to begin the first connection, until it is asked again. It doubles
/// each time, up to the time that any action has. An agent that is killed takes the action with it.
const FIRST_TIMEOUT: Duration = Duration::from_secs(2);

/// What the task needs of the job. It does not keep the job.
pub(super) struct Feeder {
    input: Arc<Input>,
    actions: Actions,
    fetched: watch::Receiver<Option<std::time::SystemTime>>,
    result: watch::Receiver<Option<JobResult>>,
    terminated: watch::Receiver<bool>,
    stall: Duration,
}

/// No writer waits for a feeder that is gone. The first reason counts.
struct FinishOnDrop(Arc<Input>);

impl Drop for FinishOnDrop {
    fn drop(&mut self) {
        self.0.finish(Over::Unwanted);
    }
}

/// Why a connection has ended.
enum End {
    /// Another connection continues. Whether this one carried anything.
    Cut(bool),
    /// None continues.
    Over(Over),
}

impl Feeder {
    pub(super) fn of(job: &Job) -> Self {
        Self {
            input: Arc::clone(&job.input),
            actions: job.actions.clone(),
            fetched: job.fetched.subscribe(),
            result: job.result.subscribe(),
            terminated: job.terminated.subscribe(),
            stall: job.limits.stall,
        }
    }

    /// Delivers until nothing more is wanted.
    pub(super) async fn run(mut self) {
        let finished = FinishOnDrop(Arc::clone(&self.input));
        let mut result = self.result.clone();
        let over = tokio::select! {
            over = self.deliver() => over,
            _ = result.wait_for(Option::is_some) => Over::Unwanted,
        };
        finished.0.finish(over);
    }

    async fn deliver(&mut self) -> Over {
        // Before that, no agent polls.
        if self.fetched.wait_for(Option::is_some).await.is_err() {
            return Over::Unwanted;
        }
        let (mut delay, mut reply_timeout) = (FIRST_DELAY, FIRST_TIMEOUT);
        loop {
            match self.connect(reply_timeout).await {
                End::Over(over) => return over,
                End::Cut(true) => (delay, reply_timeout) = (FIRST_DELAY, FIRST_TIMEOUT),
                End::Cut(false) => {
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(MAX_DELAY);
                    reply_timeout = (reply_timeout * 2).min(REPLY_TIMEOUT);
                }
            }
            tracing::debug!("the stdin of the command continues after a cut");
        }
    }

    /// Makes one connection, for which the guest has this time, and delivers on it.
    async fn connect(&self, reply_timeout: Duration) -> End {
        let action = Action { id: new_id(), request: ActionRequest::Attach(Attach {}) };
        let submitted = self.actions.submit(action, StreamProtocol::V2);
        let Ok(attempt) = timeout(reply_timeout, submitted).await else { return End::Cut(false) };
        let received = match attempt {
            Ok(received) => received,
            Err(AttemptError::Transport(_) | AttemptError::TimedOut(_)) => return End::Cut(false),
            // The service is shut down, or the result is about to come.
            Err(AttemptError::Terminated) => return End::Over(Over::Unwanted),
            Err(AttemptError::Refused(Failure { code: FailureCode::NotRunning, .. })) => {
                return End::Over(Over::Unwanted);
            }
            Err(error) => return failed(ActionError::from(error)),
        };
        let (socket, protocol, authorization) = match received {
            Received::Stream(socket, protocol, authorization) => (*socket, protocol, authorization),
            other => return failed(ActionError::Unexpected(other.unexpected())),
        };
        // It is not a stream of the user, so it does not count as one.
        let socket = Socket::from_axum(socket, None, authorization);
        let mut child = Child::start(socket, protocol, self.terminated.clone());
        child.stderr = None;
        let from = match timeout(self.stall, first_line::<StreamFrom>(&mut child)).await {
            Ok(Ok(StreamFrom { from })) => from,
            Ok(Err(FirstLineError::Invalid(error))) => return failed(ActionError::Invalid(error)),
            Ok(Err(FirstLineError::Cut)) | Err(_) => return End::Cut(false),
        };
        match self.input.connected(from) {
            Ok(()) => match child.stdin.take() {
                Some(stdin) => Link { child, stdin, block: Bytes::new() }.carry(&self.input).await,
                None => End::Cut(false),
            },
            Err(error) => failed(ActionError::invalid(error)),
        }
    }
}

fn failed(error: ActionError) -> End {
    End::Over(Over::Failed(Arc::new(error)))
}

/// One connection.
///
/// The child is dropped first. Dropping it aborts the stream, which keeps the command's stdin open;
/// dropping the stream alone would end it.
struct Link {
    child: Child,
    stdin: ChildStdin,
    /// Bytes for which there is no room yet.
    block: Bytes,
}

impl Link {
    async fn carry(mut self, input: &Input) -> End {
        let end = self.send(input).await;
        let acknowledged = self.stdin.acknowledged();
        input.acknowledged(acknowledged);
        match end {
            Ok(status) if status.success() => End::Over(Over::Unwanted),
            Ok(_) => failed(ActionError::Failed(self.child.failure())),
            Err(ChildError::Terminated) => End::Over(Over::Unwanted),
            Err(_) => End::Cut(acknowledged > 0),
        }
    }

    /// Sends until the stream ends.
    async fn send(&mut self, input: &Input) -> Result<ExitStatus, ChildError> {
        let Self { child, stdin, block } = self;
        loop {
            match input.next(block.is_empty()) {
                Some(Next::Bytes(bytes)) => *block = bytes,
                Some(Next::End) => stdin.finish(),
                Some(Next::Size(size)) => child.set_size(size.columns, size.rows),
                Some(Next::Signal(number)) => {
                    child.signal(number);
                }
                None => {
                    let waits = !block.is_empty();
                    tokio::select! {
                        biased;
                        end = child.wait() => return end,
                        sent = std::future::poll_fn(|cx| stdin.poll_send(cx, block)), if waits => {
                            // The end says why.
                            if sent.is_err() {
                                return child.wait().await;
                            }
                        }
                        () = input.changed() => {}
                    }
                }
            }
            input.acknowledged(stdin.acknowledged());
        }
    }
}
