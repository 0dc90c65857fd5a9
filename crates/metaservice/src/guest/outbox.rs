//! Answers to polls that are on their way to the guest.
//!
//! An action counts as delivered when the bytes of the poll's answer were written and flushed, not
//! when they were put into a buffer. [`Outbox`] holds the answers until the connection has flushed
//! them. If the connection ends first they are dropped, and their actions go to the next poll.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use metaservice_private::lock;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::job::actions::PollReply;

/// The state of one connection's answers. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<Mutex<Held>>);

#[derive(Default)]
pub(crate) struct Held {
    answers: Vec<PollReply>,
    /// The connection writes nothing more.
    pub(crate) abandoned: bool,
    /// The body of the current request has not been read to its end.
    pub(crate) unread: bool,
    /// Read the rest of the body after the response.
    pub(crate) linger: bool,
    /// The service is shut down: each response is the last on its connection.
    pub(crate) last: bool,
}

impl Outbox {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Held> {
        lock(&self.0)
    }

    /// Takes the answers that hyper has in its buffer.
    pub(crate) fn take(&self) -> Vec<PollReply> {
        std::mem::take(&mut self.lock().answers)
    }

    /// Ends the connection without a response.
    pub(crate) fn abandon(&self) {
        self.lock().abandoned = true;
    }
}

/// The body of a poll's answer. It puts the answer into the outbox when hyper reads the body.
pub(crate) struct AnswerBody {
    pub(crate) data: Option<Bytes>,
    pub(crate) answer: Option<PollReply>,
    pub(crate) outbox: Outbox,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.data.take();
        if data.is_some()
            && let Some(answer) = self.answer.take()
        {
            self.outbox.lock().answers.push(answer);
        }
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

impl From<AnswerBody> for Body {
    fn from(body: AnswerBody) -> Self {
        Self::new(body)
    }
}
