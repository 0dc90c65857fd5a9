//! The stdin of the job's command, for a client.
//!
//! The client's websocket ends here, and not in the guest: the service keeps what the guest has not
//! acknowledged, and continues when the connection to the guest is cut.

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt, stream};
use http::HeaderMap;
use metaservice_protocol::header::SHELL2_PROTOCOL;
use metaservice_protocol::limits::{SHELL_READ, SHELL_SILENCE_TIMEOUT, SHELL_WRITE_TIMEOUT};
use metaservice_protocol::shell::{Event, Role, ShellSession, Stream, StreamProtocol};
use metaservice_protocol::{Failure, FailureCode, TerminalSize};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::responses::refuse;
use super::served::Served;
use super::streams::{close, normal};
#[cfg(feature = "openapi")]
use crate::control::error::ApiError;
use crate::control::error::Code;
#[cfg(feature = "openapi")]
use crate::control::paths;
use crate::guest::subprotocol::offers_v2;
use crate::handle::attach::{AttachError, JobStdin};

/// Attaches to the stdin of the job's command. One client can be attached at a time. The output of
/// the command is its log.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::ATTACH, responses(
    (status = 101, description = "a websocket with the messages of a shell stream, of stream protocol v2: stdin, sizes and signals to the guest, acknowledgements and the exit from it"),
    (status = 400, body = ApiError),
    (status = 409, body = ApiError, description = "the command has no stdin, it has ended, or another client is attached"),
)))]
pub(crate) async fn attach(
    State(served): State<Served>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return refuse(Code::InvalidRequest, rejection.body_text()),
    };
    if !offers_v2(&headers) {
        let message = format!("this websocket is of the subprotocol {SHELL2_PROTOCOL}");
        return refuse(Code::InvalidRequest, message);
    }
    let stdin = match served.service.attach() {
        Ok(stdin) => stdin,
        Err(error) => {
            let code = if error == AttachError::Busy { Code::Busy } else { Code::Refused };
            return refuse(code, error.to_string());
        }
    };
    let protocol = StreamProtocol::V2;
    let mut terminated = served.service.terminated();
    let upgrade = upgrade.protocols([protocol.name()]).read_buffer_size(SHELL_READ);
    let upgrade = upgrade.max_message_size(protocol.message()).max_frame_size(protocol.message());
    upgrade.on_upgrade(async move |client| {
        tokio::select! {
            () = Attached::new(client, stdin).carry() => {}
            _ = terminated.wait_for(|terminated| *terminated) => {}
        }
    })
}

/// A client that is attached.
struct Attached {
    to_client: stream::SplitSink<WebSocket, Message>,
    from_client: stream::SplitStream<WebSocket>,
    session: ShellSession,
    stdin: JobStdin,
    /// Bytes of the client that are not accepted yet.
    block: Bytes,
}

/// What has happened.
enum Happened {
    Received(Message),
    /// The client is gone, or leaves.
    Left,
    Accepted(usize),
    /// Nothing more is wanted. If bytes could not be delivered, there is a reason.
    Closed(Result<(), String>),
}

impl Attached {
    fn new(client: WebSocket, stdin: JobStdin) -> Self {
        let (to_client, from_client) = client.split();
        let session = ShellSession::with_protocol(Role::Guest, StreamProtocol::V2);
        Self { to_client, from_client, session, stdin, block: Bytes::new() }
    }

    /// Carries until the client leaves, or nothing more is wanted.
    async fn carry(mut self) {
        let mut ended = false;
        loop {
            if self.block.is_empty() {
                self.block = self.session.read(Stream::Stdin).unwrap_or_default();
            }
            if self.block.is_empty() && self.session.is_ended(Stream::Stdin) && !ended {
                ended = true;
                let _ = self.stdin.shutdown().await;
            }
            if !self.send().await {
                return;
            }
            match self.next().await {
                Happened::Received(message) => {
                    if !self.handle(message) {
                        return;
                    }
                }
                Happened::Left => return,
                Happened::Accepted(count) => self.block.advance(count),
                Happened::Closed(closed) => return self.exit(closed).await,
            }
        }
    }

    async fn next(&mut self) -> Happened {
        let Self { from_client, stdin, block, .. } = self;
        let closed = stdin.closed();
        let waits = !block.is_empty();
        tokio::select! {
            biased;
            closed = closed => Happened::Closed(closed.map_err(|error| error.to_string())),
            message = timeout(SHELL_SILENCE_TIMEOUT, from_client.next()) => match message {
                Ok(Some(Ok(message))) => Happened::Received(message),
                _ => Happened::Left,
            },
            accepted = stdin.write(block), if waits => match accepted {
                Ok(count) => Happened::Accepted(count),
                // The reason comes by itself. Until then, bytes are discarded.
                Err(_) => Happened::Accepted(block.len()),
            },
        }
    }

    /// Sends what the session has to send; `false` if the client is gone.
    async fn send(&mut self) -> bool {
        while let Some(message) = self.session.next_message() {
            let sent = self.to_client.send(Message::Binary(message));
            if !matches!(timeout(SHELL_WRITE_TIMEOUT, sent).await, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }

    /// Handles a message; `false` if the client leaves or breaks the protocol.
    fn handle(&mut self, message: Message) -> bool {
        let message = match message {
            Message::Binary(message) => message,
            Message::Close(_) => return false,
            _ => return true,
        };
        match self.session.handle(&message) {
            Ok(Some(Event::Resized { columns, rows })) => {
                self.stdin.set_size(TerminalSize { columns, rows });
            }
            Ok(Some(Event::Signalled(number))) => self.stdin.signal(number),
            Ok(Some(Event::Aborted)) | Err(_) => return false,
            Ok(Some(Event::Readable(_) | Event::Writable(_) | Event::Exited { .. }) | None) => {}
        }
        true
    }

    async fn exit(mut self, closed: Result<(), String>) {
        let failure = closed.err().map(|reason| Failure::new(FailureCode::Other, reason));
        let detail = failure.as_ref().map(Failure::to_json).unwrap_or_default();
        self.session.exit(failure.is_none(), &detail);
        if self.send().await {
            close(self.to_client, self.from_client, Some(normal())).await;
        }
    }
}
