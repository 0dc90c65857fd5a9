//! Reply bodies, read chunk by chunk.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use metaservice_protocol::FileHead;
use tokio::sync::oneshot;

use crate::job::error::TransportError;

/// A reply whose body is read while it arrives. Dropping it ends the guest's request with an
/// error; completing `done` confirms to the guest that the whole body was read.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) head: Option<FileHead>,
    pub(crate) body: Body,
    pub(crate) done: oneshot::Sender<()>,
}

/// The next bytes of a body, `None` at its end.
pub(crate) async fn next_chunk(
    body: &mut Body,
    stall: Duration,
) -> Result<Option<Bytes>, TransportError> {
    loop {
        let Ok(frame) = tokio::time::timeout(stall, body.frame()).await else {
            return Err(TransportError::Stalled);
        };
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(TransportError::Cut(error.into())),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                _ => {}
            },
        }
    }
}
