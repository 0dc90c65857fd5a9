//! Websockets that say what has changed. The page sends nothing over them.

use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The least time between two values. Values in between are left out.
const PACE: Duration = Duration::from_millis(100);

/// How often a browser must show that it is there.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long a browser may take to read a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest message from a browser, in bytes.
const MAX_MESSAGE: usize = 1024;

/// Sends the value now, and after each change. `kept` lives as long as the websocket.
pub(super) fn push<T>(
    upgrade: WebSocketUpgrade,
    values: watch::Receiver<T>,
    end: CancellationToken,
    kept: impl Send + 'static,
) -> Response
where
    T: Serialize + Clone + Send + Sync + 'static,
{
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    upgrade.on_upgrade(move |socket| async move {
        end.run_until_cancelled(send(socket, values)).await;
        drop(kept);
    })
}

/// Ends with the websocket, or with the values.
async fn send<T: Serialize + Clone>(mut socket: WebSocket, mut values: watch::Receiver<T>) {
    let mut pings = interval(PING_INTERVAL);
    // Whether the browser has answered the last ping.
    let mut answered = true;
    values.mark_changed();
    loop {
        let message = tokio::select! {
            received = socket.recv() => match received {
                Some(Ok(Message::Pong(_))) => {
                    answered = true;
                    continue;
                }
                Some(Ok(Message::Ping(_))) => continue,
                _ => return,
            },
            _ = pings.tick() => {
                if !std::mem::take(&mut answered) {
                    return;
                }
                Message::Ping(Bytes::new())
            }
            changed = values.changed() => {
                if changed.is_err() {
                    return;
                }
                let value = values.borrow_and_update().clone();
                let Ok(text) = serde_json::to_string(&value) else { return };
                Message::Text(Utf8Bytes::from(text))
            }
        };
        let is_value = matches!(message, Message::Text(_));
        if !matches!(timeout(SEND_TIMEOUT, socket.send(message)).await, Ok(Ok(()))) {
            return;
        }
        if is_value {
            sleep(PACE).await;
        }
    }
}
