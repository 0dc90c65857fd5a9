//! Websockets that say what has changed. The page sends nothing over them.

use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};
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
    limited(upgrade).on_upgrade(move |socket| async move {
        end.run_until_cancelled(send_last(Page::new(socket), values)).await;
        drop(kept);
    })
}

/// Sends each value, and ends with them. `kept` lives as long as the websocket.
pub(super) fn pass<T: Serialize + Send + Sync + 'static>(
    upgrade: WebSocketUpgrade,
    values: mpsc::Receiver<T>,
    end: CancellationToken,
    kept: impl Send + 'static,
) -> Response {
    limited(upgrade).on_upgrade(move |socket| async move {
        end.run_until_cancelled(send_all(Page::new(socket), values)).await;
        drop(kept);
    })
}

fn limited(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE)
}

async fn send_last<T: Serialize + Clone>(mut page: Page, mut values: watch::Receiver<T>) {
    values.mark_changed();
    while let Some(Ok(())) = page.until(values.changed()).await {
        let value = values.borrow_and_update().clone();
        if !page.send(&value).await {
            return;
        }
        sleep(PACE).await;
    }
}

async fn send_all<T: Serialize>(mut page: Page, mut values: mpsc::Receiver<T>) {
    while let Some(Some(value)) = page.until(values.recv()).await {
        if !page.send(&value).await {
            return;
        }
    }
}

/// A page that listens.
struct Page {
    socket: WebSocket,
    pings: Interval,
    /// Whether the browser has answered the last ping.
    answered: bool,
}

impl Page {
    fn new(socket: WebSocket) -> Self {
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { socket, pings, answered: true }
    }

    /// Waits for something to say. `None`: the browser is gone, or it is not the page.
    async fn until<T>(&mut self, next: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(next);
        loop {
            tokio::select! {
                next = &mut next => return Some(next),
                received = self.socket.recv() => match received {
                    Some(Ok(Message::Pong(_))) => self.answered = true,
                    Some(Ok(Message::Ping(_))) => {}
                    _ => return None,
                },
                _ = self.pings.tick() => {
                    let is_there = std::mem::take(&mut self.answered);
                    if !is_there || !self.write(Message::Ping(Bytes::new())).await {
                        return None;
                    }
                }
            }
        }
    }

    async fn send(&mut self, value: &impl Serialize) -> bool {
        match serde_json::to_string(value) {
            Ok(text) => self.write(Message::Text(Utf8Bytes::from(text))).await,
            Err(_) => false,
        }
    }

    async fn write(&mut self, message: Message) -> bool {
        matches!(timeout(SEND_TIMEOUT, self.socket.send(message)).await, Ok(Ok(())))
    }
}
