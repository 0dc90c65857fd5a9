//! Websockets: the guest's on one side, the caller's on the other.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use metaservice_private::lock;

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
use metaservice_protocol::{ActionId, ActionRequest, Dial, Exec, ExecOptions};
use serde::Deserialize;
use tokio::time::timeout;

use super::super::{Code, ExecRequest, Problem, Started};
use super::described::{self, Described};
use super::problem::{Body, Query, refuse};
use super::{MAX_COMMAND, Served};
use crate::guest::replies::offers_v2;
use crate::handle::actions::ExtensionError;
use crate::handle::service::new_id;
use crate::handle::shell::Connected;

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// A command in the guest's first words. One of `id` and `command` is required.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ShellQuery {
    /// The id of a command that was described, which has `command` and `tty` alone.
    id: Option<String>,
    /// The command as a JSON array of strings; empty means the guest's default shell.
    command: Option<String>,
    /// Whether it gets a terminal.
    #[serde(default)]
    #[param(required = false)]
    tty: bool,
}

/// A shell by the means of version 1: any agent can do this.
#[utoipa::path(get, path = "/v1/shell", params(ShellQuery), responses(
    (status = 101, description = "a websocket with the messages of a shell stream, of stream protocol v2 where both sides know it"),
    (status = 400, body = Problem), (status = 502, body = Problem), (status = 503, body = Problem),
    (status = 504, body = Problem),
))]
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

/// A command and all about it. One of the two is required.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExecQuery {
    /// The id of a command that was described.
    id: Option<String>,
    /// An `ExecRequest` as JSON, of less than 64 KiB as a part of the request's target.
    exec: Option<String>,
}

/// Describes a command that `exec` or `shell` then starts by its id: once, within 30 s.
#[utoipa::path(post, path = "/v1/commands", request_body = ExecRequest, responses(
    (status = 200, body = super::super::Described),
    (status = 400, body = Problem), (status = 409, body = Problem),
))]
pub(crate) async fn describe(
    State(served): State<Served>,
    headers: HeaderMap,
    Body(exec): Body<ExecRequest>,
) -> Response {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    // Without a length it may be as long as any.
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(MAX_COMMAND);
    let id = new_id();
    let added = served.described().add(Instant::now(), id.clone(), exec.into(), length);
    match added {
        Ok(()) => Json(super::super::Described { id: id.into() }).into_response(),
        Err(error) => refuse(Code::Refused, error.to_string()),
    }
}

impl Served {
    fn described(&self) -> MutexGuard<'_, Described> {
        lock(&self.described)
    }

    /// The command that was described under this id, if it still waits.
    fn take(&self, id: &str) -> Option<Exec> {
        let id = ActionId::parse(id).ok()?;
        self.described().take(Instant::now(), &id)
    }
}

fn not_described() -> Response {
    let seconds = described::KEPT_FOR.as_secs();
    let message = format!("no command of this id waits: it was started, or not within {seconds} s");
    refuse(Code::InvalidRequest, message)
}

/// Runs a command beside the job's own. An agent of version 1 can do so where no more than a
/// command and a terminal are asked for.
#[utoipa::path(get, path = "/v1/exec", params(ExecQuery), responses(
    (status = 101, description = "a websocket with the messages of a shell stream, of stream protocol v2 where both sides know it"),
    (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
    (status = 501, body = Problem), (status = 502, body = Problem), (status = 503, body = Problem),
    (status = 504, body = Problem),
))]
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

/// Starts a command and leaves it alone. It lives no longer than the job.
#[utoipa::path(post, path = "/v1/exec", request_body = ExecRequest, responses(
    (status = 200, body = Started),
    (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
    (status = 501, body = Problem), (status = 502, body = Problem), (status = 503, body = Problem),
    (status = 504, body = Problem),
))]
pub(crate) async fn exec_detached(
    State(served): State<Served>,
    Body(exec): Body<ExecRequest>,
) -> Response {
    match served.service.exec_detached(exec.into()).await {
        Ok(pid) => Json(Started { pid }).into_response(),
        Err(error) => error.into_response(),
    }
}

/// Where to connect to.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DialQuery {
    /// An address, or `localhost`.
    host: String,
    /// The port.
    port: u16,
}

/// Connects to a TCP port in the guest: stdin is what is sent, stdout what is received.
#[utoipa::path(get, path = "/v1/dial", params(DialQuery), responses(
    (status = 101, description = "a websocket with the messages of a shell stream, of stream protocol v2"),
    (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
    (status = 501, body = Problem), (status = 502, body = Problem), (status = 503, body = Problem),
    (status = 504, body = Problem),
))]
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

/// Asks the guest for a stream, and joins it to the caller's. Both are of one protocol.
async fn open(served: Served, headers: &HeaderMap, upgrade: Upgrade, ask: Ask) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return refuse(Code::InvalidRequest, rejection.body_text()),
    };
    let most = if offers_v2(headers) { StreamProtocol::V2 } else { StreamProtocol::V1 };
    let opened: Result<Connected, ExtensionError> = match ask {
        Ask::Action(request) => served.service.socket(request, most).await,
        Ask::Exec(exec) => served.service.exec_socket(exec, most).await,
    };
    let Connected { socket: guest, protocol, place, mut admitted } = match opened {
        Ok(opened) => opened,
        Err(error) => return error.into_response(),
    };
    let upgrade = upgrade.protocols([protocol.name()]);
    let mut terminated = served.service.0.terminated.subscribe();
    let size = protocol.message();
    let upgrade = upgrade.read_buffer_size(SHELL_READ);
    upgrade.max_message_size(size).max_frame_size(size).on_upgrade(async move |client| {
        let _place = place;
        tokio::select! {
            () = relay(client, guest, protocol) => {}
            () = admitted.over() => {}
            _ = terminated.wait_for(|terminated| *terminated) => {}
        }
    })
}

/// How long an end may take to close its websocket once the stream is over.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Hands messages on in both directions, as they are. The windows are between the two
/// ends: what one has not acknowledged the other does not send, so nothing piles up here.
///
/// Nothing comes behind an exit or a close: with either both ends are closed at once.
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

/// Hands messages on until the stream is over; what both ends are closed with, `None` where it has
/// broken off. An exit counts from an end that speaks `exits`.
async fn forward(
    from: &mut Receiver,
    to: &mut Sender,
    exits: Option<StreamProtocol>,
) -> Option<CloseFrame> {
    while let Ok(Some(Ok(message))) = timeout(SHELL_SILENCE_TIMEOUT, from.next()).await {
        // Pings are answered hop by hop; ours go out so that neither hop falls silent.
        let message = match message {
            Message::Pong(_) => continue,
            Message::Ping(_) => Message::Ping(bytes::Bytes::new()),
            Message::Close(frame) => return Some(frame.unwrap_or_else(in_order)),
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
            return Some(in_order());
        }
    }
    None
}

/// Without a status a guest of version 1 takes a close for an error.
fn in_order() -> CloseFrame {
    CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() }
}

/// Closes one end, and sees its own close come: a connection that ends with bytes that nobody has
/// read takes with it what the other side has not read.
async fn close(mut to: Sender, mut from: Receiver, frame: Option<CloseFrame>) {
    let closed = async {
        let sent = match frame {
            Some(frame) => to.send(Message::Close(Some(frame))).await,
            None => to.close().await,
        };
        // It fails where the close has been answered already.
        drop(sent);
        while let Some(Ok(_)) = from.next().await {}
    };
    let _ = timeout(CLOSE_TIMEOUT, closed).await;
}
