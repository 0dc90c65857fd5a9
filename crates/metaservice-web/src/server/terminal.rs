//! A command with a terminal in the machine of a job, over a websocket.

use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, Path, Query, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use metaservice::control::{ClientError, Code as JobCode};
use metaservice::{Child, ChildOutput, ChildStdin};
use metaservice_protocol::TerminalSize;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::app::App;
use super::find::{Asked, running};
use super::guard::Until;
use super::responses::{Code, Refused, refuse, whole};
use crate::source::Reached;
use crate::terminal::{Said, Window};

/// How often a browser must show that it is there.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long a browser may take to read a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest message from a browser, in bytes.
const MAX_MESSAGE: usize = 32 * 1024;

/// How long the guest may take to say how a command has ended, after its output.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The most messages that wait until the command reads them. The page sends 16 KiB in one.
const MAX_TYPED: usize = 128;

/// The most bytes of output in a message.
const MAX_OUTPUT: usize = 32 * 1024;

/// The longest command, in bytes of JSON.
const MAX_COMMAND: usize = 8 * 1024;

/// Which terminal is opened.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Open {
    started: u64,
    columns: u16,
    rows: u16,
    /// A list of strings as JSON; by default the default shell.
    command: Option<String>,
}

/// Starts the command when the websocket is open.
pub(super) async fn open(
    State(app): State<App>,
    Path(name): Path<String>,
    query: Asked<Open>,
    Extension(Until(end)): Extension<Until>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refused> {
    let Query(Open { started, columns, rows, command }) = query?;
    let command = command.map_or_else(|| Ok(Vec::new()), |text| words(&text))?;
    let client = running(&app, &name, started).await?;
    let Ok(room) = app.terminals.clone().try_acquire_owned() else {
        return Err(refuse(Code::Refused, "there are too many terminals: close one"));
    };
    let size = TerminalSize { columns: columns.max(1), rows: rows.max(1) };
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    Ok(upgrade.on_upgrade(move |socket| async move {
        end.run_until_cancelled(serve(socket, &client, command, size)).await;
        drop(room);
    }))
}

fn words(text: &str) -> Result<Vec<String>, Refused> {
    let invalid = || refuse(Code::Invalid, "a command is a list of texts");
    if text.len() > MAX_COMMAND {
        return Err(invalid());
    }
    serde_json::from_str(text).map_err(|_| invalid())
}

/// Serves the terminal to the end of the command or of the websocket, whichever is first. Dropping
/// the future kills the command.
async fn serve(socket: WebSocket, client: &Reached, command: Vec<String>, size: TerminalSize) {
    let (sink, messages) = socket.split();
    let mut screen = Screen { sink, window: Window::default() };
    let mut child = match start(client, command, size).await {
        Ok(child) => child,
        Err(error) => return screen.end(json!({ "failed": whole(&error) })).await,
    };
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else { return };
    let (keys, typed) = mpsc::channel(MAX_TYPED);
    let _typing = AbortOnDropHandle::new(tokio::spawn(write(stdin, typed)));
    let ended = match screen.attend(messages, stdout, &child, &keys).await {
        Over::Command => match timeout(END_TIMEOUT, child.wait()).await {
            Err(_) => json!({ "failed": "the guest does not say how the command has ended" }),
            Ok(Ok(status)) => {
                let code = status.ending().map_or_else(
                    || u8::from(!status.success()),
                    metaservice_protocol::Ending::shell_status,
                );
                json!({ "ended": { "status": code } })
            }
            Ok(Err(error)) => json!({ "failed": whole(&error) }),
        },
        Over::Stuck => json!({ "failed": "the command does not read what was typed" }),
        Over::Browser => return,
    };
    screen.end(ended).await;
}

async fn start(
    client: &Reached,
    command: Vec<String>,
    size: TerminalSize,
) -> Result<Child, ClientError> {
    let plain = client.exec(command).terminal().terminal_size(size);
    match plain.clone().env("TERM", "xterm-256color").spawn().await {
        // An agent of version 1 takes no environment.
        Err(error) if error.code() == Some(JobCode::Unsupported) => plain.spawn().await,
        started => started,
    }
}

/// Writes what is typed, and ends with the command.
async fn write(mut stdin: ChildStdin, mut typed: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = typed.recv().await {
        if stdin.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Why a terminal ends.
enum Over {
    /// The output of the command has ended.
    Command,
    /// The browser is gone.
    Browser,
    /// Too much was typed.
    Stuck,
}

/// The browser's end.
struct Screen {
    sink: SplitSink<WebSocket, Message>,
    window: Window,
}

impl Screen {
    async fn attend(
        &mut self,
        mut messages: SplitStream<WebSocket>,
        mut stdout: ChildOutput,
        child: &Child,
        keys: &mpsc::Sender<Bytes>,
    ) -> Over {
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whether the browser has answered the last ping.
        let mut answered = true;
        let mut output = BytesMut::new();
        loop {
            output.reserve(MAX_OUTPUT);
            tokio::select! {
                message = messages.next() => match message {
                    Some(Ok(Message::Binary(bytes))) => match keys.try_send(bytes) {
                        Err(mpsc::error::TrySendError::Full(_)) => return Over::Stuck,
                        // The command no longer reads.
                        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                    },
                    Some(Ok(Message::Text(text))) => match Said::parse(&text) {
                        Some(Said::Resize(columns, rows)) => child.set_size(columns, rows),
                        Some(Said::Took(bytes)) => self.window.took(bytes),
                        None => return Over::Browser,
                    },
                    Some(Ok(Message::Pong(_))) => answered = true,
                    Some(Ok(Message::Ping(_))) => {}
                    _ => return Over::Browser,
                },
                read = stdout.read_buf(&mut output), if self.window.is_open() => {
                    match read {
                        // The end of the command says why.
                        Ok(0) | Err(_) => return Over::Command,
                        Ok(count) => {
                            self.window.sent(count);
                            let bytes = output.split().freeze();
                            if !self.send(Message::Binary(bytes)).await {
                                return Over::Browser;
                            }
                        }
                    }
                }
                _ = pings.tick() => {
                    let is_there = std::mem::take(&mut answered);
                    if !is_there || !self.send(Message::Ping(Bytes::new())).await {
                        return Over::Browser;
                    }
                }
            }
        }
    }

    async fn send(&mut self, message: Message) -> bool {
        matches!(timeout(SEND_TIMEOUT, self.sink.send(message)).await, Ok(Ok(())))
    }

    /// Says how it ended.
    async fn end(&mut self, how: Value) {
        if self.send(Message::Text(Utf8Bytes::from(how.to_string()))).await {
            self.send(Message::Close(None)).await;
        }
    }
}
