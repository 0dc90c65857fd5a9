//! Answers that are lines of JSON.

use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use metaservice_protocol::Failure;
use metaservice_protocol::limits::{MAX_LINE, STALL_TIMEOUT};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::actions::{ExtensionError, Incoming};
use crate::handle::error::{ActionError, TransportError};
use crate::job::artifact::{ReceiveError, next_chunk};

/// Values that come from the guest as lines, as long as somebody asks for the next one: a guest
/// that is faster is held back. Dropping it cuts the guest off.
#[derive(Debug)]
pub struct Lines<T> {
    incoming: Option<Incoming>,
    buffer: BytesMut,
    values: PhantomData<fn() -> T>,
}

/// A line that no value follows.
#[derive(Deserialize)]
struct Last {
    failure: Failure,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self { incoming: Some(incoming), buffer: BytesMut::new(), values: PhantomData }
    }

    /// Lines that nobody is told of when they have been read.
    pub(crate) fn from_body(body: axum::body::Body) -> Self {
        let (done, _) = tokio::sync::oneshot::channel();
        Self::new(Incoming { head: None, body, done })
    }

    /// The next value; `None` at the end, and after an error. May be dropped and called again:
    /// nothing is lost.
    ///
    /// # Errors
    /// [`ExtensionError`] when the lines are cut, silent for 30 s, no values, or ended by a failure.
    pub async fn next(&mut self) -> Result<Option<T>, ExtensionError> {
        let line = match self.line().await {
            Ok(Some(line)) => line,
            Ok(None) => {
                if let Some(incoming) = self.incoming.take() {
                    let _ = incoming.done.send(());
                }
                return Ok(None);
            }
            Err(error) => {
                self.end();
                return Err(error);
            }
        };
        serde_json::from_slice(&line).map(Some).map_err(|error| {
            self.end();
            match serde_json::from_slice::<Last>(&line) {
                Ok(Last { failure }) => {
                    ExtensionError::Refused(Failure::new(failure.code, failure.message))
                }
                Err(_) => ExtensionError::invalid(error),
            }
        })
    }

    /// Cuts the guest off and forgets what came.
    fn end(&mut self) {
        self.incoming = None;
        self.buffer = BytesMut::new();
    }

    /// The next line, without its end.
    async fn line(&mut self) -> Result<Option<Bytes>, ExtensionError> {
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
                return Err(ExtensionError::invalid(format!("a line of over {MAX_LINE} bytes")));
            }
            let Some(incoming) = &mut self.incoming else { return Ok(None) };
            match next_chunk(&mut incoming.body, STALL_TIMEOUT).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(ExtensionError::invalid("the last line has no end")),
                Err(ReceiveError::Transport(cause)) => {
                    return Err(ActionError::Transport(cause).into());
                }
                Err(ReceiveError::Storage(_)) => {
                    return Err(ActionError::Transport(TransportError::Closed).into());
                }
            }
        }
    }
}
