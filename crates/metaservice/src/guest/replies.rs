//! The guest's answers to actions.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use metaservice_private::lock;

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures_util::StreamExt;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use metaservice_protocol::header::{
    ERROR_HEADER, FAILURE_HEADER, FILE_HEADER, FILE_NOT_FOUND, SHELL2_PROTOCOL,
};
use metaservice_protocol::limits::{MAX_LINE, SHELL_HANDSHAKE_TIMEOUT, SHELL_READ};
use metaservice_protocol::shell::StreamProtocol;
use metaservice_protocol::{ActionId, ErrorCode, Failure, FileHead, Files, ReplyKind};
use tokio::sync::oneshot;

use crate::MetaService;
use crate::guest::endpoints::Refused;
use crate::handle::actions::Incoming;
use crate::handle::error::{ActionError, ArtifactError, TransportError};
use crate::job::actions::{Attempt, AttemptError, Received, Reply};
use crate::job::artifact::{ReceiveError, next_chunk, receive};
use crate::job::limits::Bounds;
use crate::job::queue::Refusal;
use crate::job::session::Admitted;

pub(crate) async fn reply(
    service: &MetaService,
    request: Request,
    admitted: Admitted,
) -> Result<Response, Refused> {
    let reply = begin_reply(service, &request)?;
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
        ReplyKind::Artifact => artifact_reply(service, reply, request).await,
        ReplyKind::Files => files_reply(service, reply, request).await,
        ReplyKind::Done => finish(reply, Ok(Received::Done)),
        ReplyKind::Json => json_reply(reply, request, service.0.bounds.stall).await,
        ReplyKind::Transfer | ReplyKind::JsonLines => body_reply(reply, request, admitted).await,
        ReplyKind::Stream => stream_reply(reply, request.into_parts().0, admitted).await,
    }
}

fn wrong_method(reply: Reply) -> Refused {
    reply.refuse();
    Refused::new(ErrorCode::MethodNotAllowed, "this action is not replied to by this method")
}

async fn json_reply(
    mut reply: Reply,
    request: Request,
    stall: Duration,
) -> Result<Response, Refused> {
    let read = async {
        let mut json = BytesMut::new();
        let mut body = request.into_body();
        while let Some(chunk) = next_chunk(&mut body, stall).await? {
            if json.len() + chunk.len() > MAX_LINE {
                return Ok(None);
            }
            json.extend_from_slice(&chunk);
        }
        Ok::<_, ReceiveError>(Some(json))
    };
    let read = tokio::select! {
        biased;
        read = read => read,
        () = reply.abandoned() => return Err(Refused::unknown_action()),
    };
    match read {
        Ok(Some(json)) => finish(reply, Ok(Received::Json(json.freeze()))),
        Ok(None) => Err(not_so(reply, format!("this reply has at most {MAX_LINE} bytes"))),
        Err(_) => Err(broken(reply, TransportError::Closed)),
    }
}

/// Hands the body to whoever waits for it, and answers when they are done with it.
async fn body_reply(
    reply: Reply,
    request: Request,
    mut admitted: Admitted,
) -> Result<Response, Refused> {
    let head = request.headers().get(FILE_HEADER).and_then(|value| value.to_str().ok());
    let head = head.and_then(FileHead::from_header);
    if head.is_none() && reply.description().reply == ReplyKind::Transfer {
        return Err(not_so(reply, format!("a file comes with the header {FILE_HEADER}")));
    }
    let (done, taken) = oneshot::channel();
    // It is read by somebody else, for whom it ends with the leave.
    let leave = async move { admitted.over().await };
    let body =
        Body::from_stream(request.into_body().into_data_stream().take_until(Box::pin(leave)));
    let incoming = Incoming { head, body, done };
    if !reply.finish(Ok(Received::Body(Box::new(incoming)))) {
        return Err(Refused::unknown_action());
    }
    match taken.await {
        Ok(()) => Ok(StatusCode::OK.into_response()),
        Err(_) => Err(Refused::new(ErrorCode::InternalError, "the reply is no longer wanted")),
    }
}

pub(crate) async fn list_folder(
    service: &MetaService,
    request: Request,
) -> Result<Response, Refused> {
    let reply = begin_reply(service, &request)?;
    if request.method() != http::Method::POST {
        return Err(wrong_method(reply));
    }
    if reply.description().reply != ReplyKind::Files {
        reply.refuse();
        let message = "this action is not a list-folder";
        return Err(Refused::new(ErrorCode::InvalidPayload, message));
    }
    files_reply(service, reply, request).await
}

fn begin_reply(service: &MetaService, request: &Request) -> Result<Reply, Refused> {
    let query = request.uri().query().unwrap_or_default();
    let id = query.split('&').find_map(|pair| pair.strip_prefix("id="));
    let id = id.and_then(|id| ActionId::parse(id).ok()).ok_or_else(Refused::unknown_action)?;
    service.0.actions.reply(&id, request.method().as_str()).map_err(|refusal| match refusal {
        Refusal::Unknown => Refused::unknown_action(),
        Refusal::WrongMethod => Refused::new(
            ErrorCode::MethodNotAllowed,
            "this action is not replied to by this method",
        ),
    })
}

/// Hands the outcome over. A caller that has gone away meanwhile has withdrawn the action.
fn finish(reply: Reply, outcome: Attempt) -> Result<Response, Refused> {
    if reply.finish(outcome) {
        Ok(StatusCode::OK.into_response())
    } else {
        Err(Refused::unknown_action())
    }
}

async fn artifact_reply(
    service: &MetaService,
    mut reply: Reply,
    request: Request,
) -> Result<Response, Refused> {
    match request.headers().get(ERROR_HEADER).map(HeaderValue::as_bytes) {
        None => {}
        Some(value) if value == FILE_NOT_FOUND.as_bytes() => {
            return finish(reply, Ok(Received::Artifact(Err(ArtifactError::NotFound))));
        }
        Some(_) => {
            return Err(not_so(reply, format!("{ERROR_HEADER} has one value: {FILE_NOT_FOUND}")));
        }
    }
    let folder = (service.0.temporary_folder.clone(), service.0.disk_work);
    let share = service.0.storage.file(service.0.bounds.artifact);
    let received = tokio::select! {
        biased;
        received = receive(request.into_body(), folder, share, service.0.bounds.stall) => received,
        () = reply.abandoned() => return Err(Refused::unknown_action()),
    };
    match received {
        Ok(artifact) => finish(reply, Ok(Received::Artifact(Ok(artifact)))),
        Err(ReceiveError::Transport(cause)) => Err(broken(reply, cause)),
        Err(ReceiveError::Storage(cause)) => {
            reply.finish(Ok(Received::Artifact(Err(ArtifactError::Storage(cause)))));
            Err(Refused::new(ErrorCode::InternalError, "the file cannot be stored"))
        }
    }
}

/// The guest hears of it only if its connection can still be written.
fn broken(reply: Reply, cause: TransportError) -> Refused {
    reply.finish(Err(cause.into()));
    Refused::new(ErrorCode::InternalError, "the reply did not arrive whole")
}

async fn files_reply(
    service: &MetaService,
    mut reply: Reply,
    request: Request,
) -> Result<Response, Refused> {
    if !is_json(request.headers()) {
        return Err(not_so(reply, "the content type of this reply is application/json"));
    }
    let bounds = &service.0.bounds;
    let body = tokio::select! {
        biased;
        body = read_files(request.into_body(), bounds) => body,
        () = reply.abandoned() => return Err(Refused::unknown_action()),
    };
    let too_many = || format!("a Files payload has at most {} names", bounds.names);
    let too_large = match body {
        // Before each name takes memory of its own.
        Ok(Some(json)) if strings(&json) > bounds.names.saturating_add(MEMBERS) => too_many(),
        Ok(Some(json)) => match serde_json::from_slice::<Files>(&json) {
            Ok(files) if files.files.as_ref().map_or(0, Vec::len) > bounds.names => too_many(),
            Ok(files) => return finish(reply, Ok(Received::Files(files))),
            Err(error) => return Err(not_so(reply, format!("not a Files payload: {error}"))),
        },
        Ok(None) => format!("a Files payload has at most {} bytes", bounds.list),
        Err(ReceiveError::Transport(cause)) => return Err(broken(reply, cause)),
        Err(ReceiveError::Storage(_)) => return Err(broken(reply, TransportError::Closed)),
    };
    // The guest has no other list: its caller hears at once, and not when its time is over.
    reply.finish(Err(ActionError::Invalid(too_large.clone()).into()));
    Err(Refused::new(ErrorCode::InvalidPayload, too_large))
}

/// Refuses what was no reply; the guest may try again.
fn not_so(reply: Reply, reason: impl Into<String>) -> Refused {
    let reason = reason.into();
    reply.refuse_for(&reason);
    Refused::new(ErrorCode::InvalidPayload, reason)
}

/// How many strings a Files payload has beside the names: its members' own names, and of members to come.
const MEMBERS: usize = 16;

/// How many strings there are in JSON.
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

/// A list-folder body, `None` when it is too long.
async fn read_files(mut body: Body, bounds: &Bounds) -> Result<Option<BytesMut>, ReceiveError> {
    let mut json = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut body, bounds.stall).await? {
        if json.len() + chunk.len() > bounds.list {
            return Ok(None);
        }
        json.extend_from_slice(&chunk);
    }
    Ok(Some(json))
}

async fn stream_reply(
    reply: Reply,
    mut parts: Parts,
    admitted: Admitted,
) -> Result<Response, Refused> {
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            return Err(not_so(
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
        return Err(Refused::new(ErrorCode::InvalidPayload, message));
    }
    let upgrade = upgrade.protocols([protocol.name()]);
    // The reply travels with whichever of the two ends the handshake.
    let (connected, failed) = share(reply);
    let upgrade = upgrade
        .read_buffer_size(SHELL_READ)
        .max_message_size(protocol.message())
        .max_frame_size(protocol.message())
        .on_failed_upgrade(move |error| {
            if let Some(reply) = failed.take() {
                reply.finish(Err(TransportError::Handshake(Some(error)).into()));
            }
        });
    let (handshake, ended) = oneshot::channel::<()>();
    let late = connected.clone();
    tokio::spawn(async move {
        // The sender goes with the callback below, called or not.
        if tokio::time::timeout(SHELL_HANDSHAKE_TIMEOUT, ended).await.is_err()
            && let Some(reply) = late.take()
        {
            reply.finish(Err(TransportError::Handshake(None).into()));
        }
    });
    Ok(upgrade.on_upgrade(async move |socket| {
        drop(handshake);
        if let Some(reply) = connected.take() {
            reply.finish(Ok(Received::Stream(Box::new(socket), protocol, admitted)));
        }
    }))
}

pub(crate) fn offers_v2(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    offers
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim() == SHELL2_PROTOCOL)
}

/// A reply that several may want and one gets.
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
    fn strings_are_counted_without_being_kept() {
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
