//! Websockets: the guest's on one side, the client's on the other.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt, StreamExt, stream};
use http::{HeaderMap, header};
use metaservice_protocol::header::SHELL2_PROTOCOL;
use metaservice_protocol::limits::{SHELL_READ, SHELL_SILENCE_TIMEOUT, SHELL_WRITE_TIMEOUT};
use metaservice_protocol::shell::{Frame, StreamProtocol};
use metaservice_protocol::{ActionRequest, Dial, Exec, ExecOptions};
use serde::Deserialize;
use tokio::time::timeout;

use super::described;
use super::extract::{Body, MAX_COMMAND, Query};
use super::responses::{failed, refuse};
use super::served::Served;
#[cfg(feature = "openapi")]
use crate::control::error::ApiError;
use crate::control::error::Code;
use crate::control::model::{Described, ExecRequest, Started};
#[cfg(feature = "openapi")]
use crate::control::paths;
use crate::guest::subprotocol::offers_v2;
use crate::handle::child::socket::Connected;
use crate::handle::exec::Executor;

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// A command for an agent of version 1. One of `id` and `command` is required.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub(crate) struct ShellQuery {
    /// The id of a described command that has only `command` and `tty`.
    id: Option<String>,
    /// The command as a JSON array of strings; empty means the guest's default shell.
    command: Option<String>,
    /// Give the command a terminal.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", param(required = false))]
    tty: bool,
}

/// A shell of version 1. Each agent can do this.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::SHELL, params(ShellQuery), responses(
    (status = 101, description = "a websocket with the messages of a shell stream, of stream protocol v2 if both sides know it"),
    (status = 400, body = ApiError), (status = 502, body = ApiError), (status = 503, body = ApiError),
    (status = 504, body = ApiError),
)))]
pub(crate) async fn shell(
    State(served): State<Served>,
    Query(query): Query<ShellQuery>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let request = match query {
        ShellQuery { id: Some(id), command: None, tty: false } => match served.take(&id) {
            Some(Exec { command, tty, options }) if options == ExecOptions::default() => {
                ActionRequest::ExecShell { command, tty }
            }
            Some(_) => {
                let message = "a shell of version 1 is a command and a terminal, and nothing else";
                return refuse(Code::InvalidRequest, message);
            }
            None => return not_described(),
        },
        ShellQuery { id: None, command: Some(command), tty } => {
            let Ok(command) = serde_json::from_str(&command) else {
                return refuse(Code::InvalidRequest, "the command is not a JSON array of strings");
            };
            ActionRequest::ExecShell { command, tty }
        }
        _ => return refuse(Code::InvalidRequest, "either an id or a command is required"),
    };
    open(served, &headers, upgrade, Ask::Action(request)).await
}

/// A command. One of `id` and `exec` is required.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub(crate) struct ExecQuery {
    /// The id of a described command.
    id: Option<String>,
    /// An `ExecRequest` as JSON, of less than 64 KiB in the request's target.
    exec: Option<String>,
}

/// Describes a command. `exec` or `shell` starts it with its id, once, within 30 s.
#[cfg_attr(feature = "openapi", utoipa::path(post, path = paths::COMMANDS, request_body = ExecRequest, responses(
    (status = 200, body = Described),
    (status = 400, body = ApiError), (status = 409, body = ApiError),
)))]
pub(crate) async fn describe(
    State(served): State<Served>,
    headers: HeaderMap,
    Body(exec): Body<ExecRequest>,
) -> Response {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    // Without a length it may have the largest one.
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(MAX_COMMAND);
    match served.describe(exec.into(), length) {
        Ok(id) => Json(Described { id: id.into() }).into_response(),
        Err(error) => refuse(Code::Refused, error.to_string()),
    }
}

fn not_described() -> Response {
    let seconds = described::KEPT_FOR.as_secs();
    let message = format!("no command of this id waits: it was started, or not within {seconds} s");
    refuse(Code::InvalidRequest, message)
}

/// Runs a command in addition to the job. An agent of version 1 supports no options except a
/// terminal.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::EXEC, params(ExecQuery), responses(
    (status = 101, description = "a websocket with the messages of a shell stream, of stream protocol v2 if both sides know it"),
    (status = 400, body = ApiError), (status = 404, body = ApiError), (status = 409, body = ApiError),
    (status = 501, body = ApiError), (status = 502, body = ApiError), (status = 503, body = ApiError),
    (status = 504, body = ApiError),
)))]
pub(crate) async fn exec(
    State(served): State<Served>,
    Query(query): Query<ExecQuery>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let exec = match (query.id, query.exec) {
        (Some(id), None) => match served.take(&id) {
            Some(exec) => exec,
            None => return not_described(),
        },
        (None, Some(exec)) => match serde_json::from_str::<ExecRequest>(&exec) {
            Ok(exec) => exec.into(),
            Err(error) => {
                return refuse(Code::InvalidRequest, format!("exec is no ExecRequest: {error}"));
            }
        },
        _ => return refuse(Code::InvalidRequest, "either an id or an exec is required"),
    };
    open(served, &headers, upgrade, Ask::Exec(exec)).await
}

/// Starts a command without streams. It ends with the job at the latest.
#[cfg_attr(feature = "openapi", utoipa::path(post, path = paths::EXEC, request_body = ExecRequest, responses(
    (status = 200, body = Started),
    (status = 400, body = ApiError), (status = 404, body = ApiError), (status = 409, body = ApiError),
    (status = 501, body = ApiError), (status = 502, body = ApiError), (status = 503, body = ApiError),
    (status = 504, body = ApiError),
)))]
pub(crate) async fn exec_detached(
    State(served): State<Served>,
    Body(exec): Body<ExecRequest>,
) -> Response {
    let mut exec = Exec::from(exec);
    exec.options.detach = true;
    match served.service.start_detached(exec).await {
        Ok(pid) => Json(Started { pid }).into_response(),
        Err(error) => failed(&error),
    }
}

/// What to connect to.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub(crate) struct DialQuery {
    /// An address, or `localhost`.
    host: String,
    /// The port.
    port: u16,
}

/// Connects to a TCP port in the guest. Stdin carries what is sent, stdout what is received.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::DIAL, params(DialQuery), responses(
    (status = 101, description = "a websocket with the messages of a shell stream, of stream protocol v2"),
    (status = 400, body = ApiError), (status = 404, body = ApiError), (status = 409, body = ApiError),
    (status = 501, body = ApiError), (status = 502, body = ApiError), (status = 503, body = ApiError),
    (status = 504, body = ApiError),
)))]
pub(crate) async fn dial(
    State(served): State<Served>,
    Query(query): Query<DialQuery>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    if !offers_v2(&headers) {
        let message = format!("this websocket is of the subprotocol {SHELL2_PROTOCOL}");
        return refuse(Code::InvalidRequest, message);
    }
    let request = ActionRequest::Dial(Dial { host: query.host, port: query.port });
    open(served, &headers, upgrade, Ask::Action(request)).await
}

enum Ask {
    Action(ActionRequest),
    Exec(Exec),
}

/// Requests a stream from the guest, and connects it to the client's. Both have the same stream
/// protocol.
async fn open(served: Served, headers: &HeaderMap, upgrade: Upgrade, ask: Ask) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return refuse(Code::InvalidRequest, rejection.body_text()),
    };
    let most = if offers_v2(headers) { StreamProtocol::V2 } else { StreamProtocol::V1 };
    let opened = match ask {
        Ask::Action(request) => {
            served.service.socket(request, most).await.map_err(|error| failed(&error))
        }
        Ask::Exec(exec) => {
            served.service.exec_socket(exec, most).await.map_err(|error| failed(&error))
        }
    };
    let Connected { socket: guest, protocol, permit, mut authorization } = match opened {
        Ok(opened) => opened,
        Err(response) => return response,
    };
    let upgrade = upgrade.protocols([protocol.name()]);
    let mut terminated = served.service.terminated();
    let size = protocol.message();
    let upgrade = upgrade.read_buffer_size(SHELL_READ);
    upgrade.max_message_size(size).max_frame_size(size).on_upgrade(async move |client| {
        let _permit = permit;
        tokio::select! {
            () = relay(client, guest, protocol) => {}
            () = authorization.ended() => {}
            _ = terminated.wait_for(|terminated| *terminated) => {}
        }
    })
}

/// How long an end may take to close its websocket after the end of the stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Forwards messages in both directions, unchanged. The windows are between the two ends: one end
/// sends no more than the other has acknowledged, so no queue grows here.
///
/// An exit or a close is the last message: with either, both ends are closed.
async fn relay(client: WebSocket, guest: WebSocket, protocol: StreamProtocol) {
    let (mut to_client, mut from_client) = client.split();
    let (mut to_guest, mut from_guest) = guest.split();
    let frame = tokio::select! {
        frame = forward(&mut from_guest, &mut to_client, Some(protocol)) => frame,
        frame = forward(&mut from_client, &mut to_guest, None) => frame,
    };
    tokio::join!(close(to_client, from_client, frame.clone()), close(to_guest, from_guest, frame));
}

type Sender = stream::SplitSink<WebSocket, Message>;
type Receiver = stream::SplitStream<WebSocket>;

/// Forwards messages until the end of the stream. Returns the frame that closes both ends, `None`
/// if the stream broke. `exits` is the stream protocol of an end that sends exits.
async fn forward(
    from: &mut Receiver,
    to: &mut Sender,
    exits: Option<StreamProtocol>,
) -> Option<CloseFrame> {
    while let Ok(Some(Ok(message))) = timeout(SHELL_SILENCE_TIMEOUT, from.next()).await {
        // Each hop answers pings itself. They are forwarded so that neither hop is silent.
        let message = match message {
            Message::Pong(_) => continue,
            Message::Ping(_) => Message::Ping(bytes::Bytes::new()),
            Message::Close(frame) => return Some(frame.unwrap_or_else(normal)),
            other => other,
        };
        let exited = match (&message, exits) {
            (Message::Binary(frame), Some(protocol)) => {
                matches!(Frame::decode(frame, protocol), Ok(Frame::Exit { .. }))
            }
            _ => false,
        };
        let sent = timeout(SHELL_WRITE_TIMEOUT, to.send(message)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return None;
        }
        if exited {
            return Some(normal());
        }
    }
    None
}

/// A normal close. A guest of version 1 takes a close without a status for an error.
pub(super) fn normal() -> CloseFrame {
    CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() }
}

/// Closes one end, and waits for its close. A connection that is closed with unread bytes is reset,
/// and the other side loses the bytes that it has not read.
pub(super) async fn close(mut to: Sender, mut from: Receiver, frame: Option<CloseFrame>) {
    let closed = async {
        let sent = match frame {
            Some(frame) => to.send(Message::Close(Some(frame))).await,
            None => to.close().await,
        };
        // This fails if the close was answered before.
        drop(sent);
        while let Some(Ok(_)) = from.next().await {}
    };
    let _ = timeout(CLOSE_TIMEOUT, closed).await;
}
