//! Replies of the guest to actions.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures_util::StreamExt;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use metaservice_private::lock;
use metaservice_protocol::header::{
    ERROR_HEADER, FAILURE_HEADER, FILE_HEADER, FILE_NOT_FOUND, SHELL2_PROTOCOL,
};
use metaservice_protocol::limits::{MAX_LINE, SHELL_HANDSHAKE_TIMEOUT, SHELL_READ};
use metaservice_protocol::shell::StreamProtocol;
use metaservice_protocol::{ActionId, ErrorCode, Failure, FileHead, Files, ReplyKind};
use tokio::sync::oneshot;

use crate::guest::context::GuestContext;
use crate::guest::http_error::HttpError;
use crate::guest::subprotocol::offers_v2;
use crate::job::actions::{Attempt, AttemptError, Received, Reply};
use crate::job::artifact::{ReceiveError, receive};
use crate::job::body::{Incoming, next_chunk};
use crate::job::error::TransportError;
use crate::job::limits::Limits;
use crate::job::queue::ReplyError;
use crate::job::session::Authorization;

pub(crate) async fn reply(
    guest: &GuestContext,
    request: Request,
    authorization: Authorization,
) -> Result<Response, HttpError> {
    let reply = begin_reply(guest, &request)?;
    let description = reply.description();
    if description.capability.is_some()
        && let Some(value) = request.headers().get(FAILURE_HEADER)
    {
        let failure = Failure::from_header(value.to_str().unwrap_or_default());
        return finish(reply, Err(AttemptError::Refused(failure)));
    }
    if request.method().as_str() != description.reply.method() {
        return Err(wrong_method(reply));
    }
    match description.reply {
        ReplyKind::Artifact => artifact_reply(guest, reply, request).await,
        ReplyKind::Files => files_reply(guest, reply, request).await,
        ReplyKind::Done => finish(reply, Ok(Received::Done)),
        ReplyKind::Json => json_reply(reply, request, guest.job.limits.stall).await,
        ReplyKind::Transfer | ReplyKind::JsonLines => {
            body_reply(reply, request, authorization).await
        }
        ReplyKind::Stream => stream_reply(reply, request.into_parts().0, authorization).await,
    }
}

fn wrong_method(reply: Reply) -> HttpError {
    reply.refuse();
    HttpError::new(ErrorCode::MethodNotAllowed, "this action is not replied to by this method")
}

async fn json_reply(
    mut reply: Reply,
    request: Request,
    stall: Duration,
) -> Result<Response, HttpError> {
    let read = async {
        let mut json = BytesMut::new();
        let mut body = request.into_body();
        while let Some(chunk) = next_chunk(&mut body, stall).await? {
            if json.len() + chunk.len() > MAX_LINE {
                return Ok(None);
            }
            json.extend_from_slice(&chunk);
        }
        Ok::<_, TransportError>(Some(json))
    };
    let read = tokio::select! {
        biased;
        read = read => read,
        () = reply.abandoned() => return Err(HttpError::unknown_action()),
    };
    match read {
        Ok(Some(json)) => finish(reply, Ok(Received::Json(json.freeze()))),
        Ok(None) => Err(invalid(reply, format!("this reply has at most {MAX_LINE} bytes"))),
        Err(cause) => Err(broken(reply, cause)),
    }
}

/// Gives the body to the caller of the action, and responds when the caller has read it.
async fn body_reply(
    reply: Reply,
    request: Request,
    mut authorization: Authorization,
) -> Result<Response, HttpError> {
    let head = request.headers().get(FILE_HEADER).and_then(|value| value.to_str().ok());
    let head = head.and_then(FileHead::from_header);
    if head.is_none() && reply.description().reply == ReplyKind::Transfer {
        return Err(invalid(reply, format!("a file comes with the header {FILE_HEADER}")));
    }
    let (done, taken) = oneshot::channel();
    // Another task reads the body. For that task, too, it ends with the authorization.
    let ended = async move { authorization.ended().await };
    let body =
        Body::from_stream(request.into_body().into_data_stream().take_until(Box::pin(ended)));
    let incoming = Incoming { head, body, done };
    if !reply.finish(Ok(Received::Body(Box::new(incoming)))) {
        return Err(HttpError::unknown_action());
    }
    match taken.await {
        Ok(()) => Ok(StatusCode::OK.into_response()),
        Err(_) => Err(HttpError::new(ErrorCode::InternalError, "the reply is no longer wanted")),
    }
}

pub(crate) async fn list_folder(
    guest: &GuestContext,
    request: Request,
) -> Result<Response, HttpError> {
    let reply = begin_reply(guest, &request)?;
    if request.method() != http::Method::POST {
        return Err(wrong_method(reply));
    }
    if reply.description().reply != ReplyKind::Files {
        reply.refuse();
        let message = "this action is not a list-folder";
        return Err(HttpError::new(ErrorCode::InvalidPayload, message));
    }
    files_reply(guest, reply, request).await
}

fn begin_reply(guest: &GuestContext, request: &Request) -> Result<Reply, HttpError> {
    let query = request.uri().query().unwrap_or_default();
    let id = query.split('&').find_map(|pair| pair.strip_prefix("id="));
    let id = id.and_then(|id| ActionId::parse(id).ok()).ok_or_else(HttpError::unknown_action)?;
    guest.job.actions.reply(&id, request.method().as_str()).map_err(|refusal| match refusal {
        ReplyError::Unknown => HttpError::unknown_action(),
        ReplyError::WrongMethod => HttpError::new(
            ErrorCode::MethodNotAllowed,
            "this action is not replied to by this method",
        ),
    })
}

/// Gives the caller the result. If the caller is gone, the action is withdrawn.
fn finish(reply: Reply, outcome: Attempt) -> Result<Response, HttpError> {
    if reply.finish(outcome) {
        Ok(StatusCode::OK.into_response())
    } else {
        Err(HttpError::unknown_action())
    }
}

async fn artifact_reply(
    guest: &GuestContext,
    mut reply: Reply,
    request: Request,
) -> Result<Response, HttpError> {
    match request.headers().get(ERROR_HEADER).map(HeaderValue::as_bytes) {
        None => {}
        Some(value) if value == FILE_NOT_FOUND.as_bytes() => {
            return finish(reply, Err(AttemptError::NoFile));
        }
        Some(_) => {
            return Err(invalid(reply, format!("{ERROR_HEADER} has one value: {FILE_NOT_FOUND}")));
        }
    }
    let directory = (guest.job.temporary_directory.clone(), guest.job.disk_work);
    let share = guest.job.storage.file(guest.job.limits.artifact);
    let received = tokio::select! {
        biased;
        received = receive(request.into_body(), directory, share, guest.job.limits.stall) => received,
        () = reply.abandoned() => return Err(HttpError::unknown_action()),
    };
    match received {
        Ok(artifact) => finish(reply, Ok(Received::Artifact(artifact))),
        Err(ReceiveError::Transport(cause)) => Err(broken(reply, cause)),
        Err(ReceiveError::Storage(cause)) => {
            reply.finish(Err(AttemptError::Storage(cause)));
            Err(HttpError::new(ErrorCode::InternalError, "the file cannot be stored"))
        }
    }
}

/// A reply that did not arrive completely. The guest gets the error only if its connection can
/// still be written.
fn broken(reply: Reply, cause: TransportError) -> HttpError {
    reply.finish(Err(cause.into()));
    HttpError::new(ErrorCode::InternalError, "the reply did not arrive whole")
}

async fn files_reply(
    guest: &GuestContext,
    mut reply: Reply,
    request: Request,
) -> Result<Response, HttpError> {
    if !is_json(request.headers()) {
        return Err(invalid(reply, "the content type of this reply is application/json"));
    }
    let limits = &guest.job.limits;
    let body = tokio::select! {
        biased;
        body = read_files(request.into_body(), limits) => body,
        () = reply.abandoned() => return Err(HttpError::unknown_action()),
    };
    let too_many = || format!("a Files payload has at most {} names", limits.names);
    let too_large = match body {
        // Before each name is allocated.
        Ok(Some(json)) if strings(&json) > limits.names.saturating_add(MEMBERS) => too_many(),
        Ok(Some(json)) => match serde_json::from_slice::<Files>(&json) {
            Ok(files) if files.files.as_ref().map_or(0, Vec::len) > limits.names => too_many(),
            Ok(files) => return finish(reply, Ok(Received::Files(files))),
            Err(error) => return Err(invalid(reply, format!("not a Files payload: {error}"))),
        },
        Ok(None) => format!("a Files payload has at most {} bytes", limits.list),
        Err(cause) => return Err(broken(reply, cause)),
    };
    // The guest has no shorter list: the caller gets the error now, not after a timeout.
    reply.finish(Err(AttemptError::Invalid(too_large.clone())));
    Err(HttpError::new(ErrorCode::InvalidPayload, too_large))
}

/// Refuses an invalid reply; the guest may try again.
fn invalid(reply: Reply, reason: impl Into<String>) -> HttpError {
    let reason = reason.into();
    reply.refuse_for(&reason);
    HttpError::new(ErrorCode::InvalidPayload, reason)
}

/// How many strings a Files payload may have in addition to the names: keys, also of later
/// versions.
const MEMBERS: usize = 16;

/// The number of strings in JSON.
fn strings(json: &[u8]) -> usize {
    let (mut count, mut within, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = within,
            b'"' => {
                count += usize::from(!within);
                within = !within;
            }
            _ => {}
        }
    }
    count
}

/// The body of a list-folder, `None` if it is too long.
async fn read_files(mut body: Body, limits: &Limits) -> Result<Option<BytesMut>, TransportError> {
    let mut json = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut body, limits.stall).await? {
        if json.len() + chunk.len() > limits.list {
            return Ok(None);
        }
        json.extend_from_slice(&chunk);
    }
    Ok(Some(json))
}

async fn stream_reply(
    reply: Reply,
    mut parts: Parts,
    authorization: Authorization,
) -> Result<Response, HttpError> {
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            return Err(invalid(
                reply,
                format!("a shell begins with a websocket upgrade: {rejection}"),
            ));
        }
    };
    let offered = offers_v2(&parts.headers);
    let protocol = if offered { reply.protocol() } else { StreamProtocol::V1 };
    if protocol == StreamProtocol::V1 && reply.description().capability.is_some() {
        reply.refuse();
        let message = format!("this stream is of the subprotocol {SHELL2_PROTOCOL}");
        return Err(HttpError::new(ErrorCode::InvalidPayload, message));
    }
    let upgrade = upgrade.protocols([protocol.name()]);
    // The callback that ends the handshake takes the reply.
    let (connected, failed) = share(reply);
    let upgrade = upgrade
        .read_buffer_size(SHELL_READ)
        .max_message_size(protocol.message())
        .max_frame_size(protocol.message())
        .on_failed_upgrade(move |error: axum::Error| {
            if let Some(reply) = failed.take() {
                reply.finish(Err(TransportError::Handshake(Some(error.into())).into()));
            }
        });
    let (handshake, ended) = oneshot::channel::<()>();
    let late = connected.clone();
    tokio::spawn(async move {
        // The sender is dropped with the callback below, whether it is called or not.
        if tokio::time::timeout(SHELL_HANDSHAKE_TIMEOUT, ended).await.is_err()
            && let Some(reply) = late.take()
        {
            reply.finish(Err(TransportError::Handshake(None).into()));
        }
    });
    Ok(upgrade.on_upgrade(async move |socket| {
        drop(handshake);
        if let Some(reply) = connected.take() {
            reply.finish(Ok(Received::Stream(Box::new(socket), protocol, authorization)));
        }
    }))
}

/// A reply that one of several callbacks takes.
#[derive(Clone)]
struct Shared(Arc<Mutex<Option<Reply>>>);

impl Shared {
    fn take(&self) -> Option<Reply> {
        lock(&self.0).take()
    }
}

fn share(reply: Reply) -> (Shared, Shared) {
    let shared = Shared(Arc::new(Mutex::new(Some(reply))));
    (shared.clone(), shared)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::strings;

    #[test]
    fn strings_are_counted() {
        for (json, count) in [
            (r#"{"files":["/a","/b"],"notFound":false}"#, 4),
            (r#"["a\"b","\\","",1,"\\\""]"#, 4),
            ("", 0),
            (r#"""#, 1),
        ] {
            assert_eq!(strings(json.as_bytes()), count, "{json}");
        }
    }
}
