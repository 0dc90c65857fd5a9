//! Replies that are lines of JSON.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use metaservice_protocol::Failure;
use metaservice_protocol::limits::{MAX_LINE, STALL_TIMEOUT};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::handle::error::ActionError;
use crate::job::body::{Incoming, next_chunk};

/// Values that the guest sends one by one, as a stream. The guest sends no faster than you read.
/// Dropping the stream ends the guest's reply.
///
/// An item is an error if the connection is cut, if nothing comes for 30 s, if a line is not a
/// value, or if the guest reports a failure. An error is the last item.
pub struct Lines<T>(Pin<Box<dyn Stream<Item = Result<T, ActionError>> + Send>>);

/// A last line that reports a failure.
#[derive(Deserialize)]
struct FailureLine {
    failure: Failure,
}

impl<T: DeserializeOwned + 'static> Lines<T> {
    pub(crate) fn new(incoming: Incoming) -> Self {
        let reader = LineReader { incoming, buffer: BytesMut::new() };
        Self(Box::pin(stream::try_unfold(reader, async |mut reader| match reader.line().await? {
            Some(line) => parse(&line).map(|value| Some((value, reader))),
            None => {
                let _ = reader.incoming.done.send(());
                Ok(None)
            }
        })))
    }

    /// Lines of the control API, whose end is not confirmed.
    #[cfg(feature = "control")]
    pub(crate) fn from_body(body: axum::body::Body) -> Self {
        let (done, _) = tokio::sync::oneshot::channel();
        Self::new(Incoming { head: None, body, done })
    }
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, ActionError> {
    serde_json::from_slice(line).map_err(|error| match serde_json::from_slice(line) {
        Ok(FailureLine { failure }) => {
            ActionError::Failed(Failure::new(failure.code, failure.message))
        }
        Err(_) => ActionError::invalid(error),
    })
}

struct LineReader {
    incoming: Incoming,
    buffer: BytesMut,
}

impl LineReader {
    /// The next line, without its end.
    async fn line(&mut self) -> Result<Option<Bytes>, ActionError> {
        let mut searched = 0;
        loop {
            let found = self.buffer[searched..].iter().position(|byte| *byte == b'\n');
            if let Some(place) = found {
                let mut line = self.buffer.split_to(searched + place + 1);
                line.truncate(searched + place);
                return Ok(Some(line.freeze()));
            }
            searched = self.buffer.len();
            if searched > MAX_LINE {
                return Err(ActionError::invalid(format!("a line of over {MAX_LINE} bytes")));
            }
            match next_chunk(&mut self.incoming.body, STALL_TIMEOUT).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(ActionError::invalid("the last line has no end")),
                Err(cause) => return Err(ActionError::Transport(cause)),
            }
        }
    }
}

impl<T> Stream for Lines<T> {
    type Item = Result<T, ActionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl<T> fmt::Debug for Lines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}
