//! Moves messages between the session and the websocket.
//!
//! Reading and writing run side by side: if one waited for the other, two full connections could
//! block each other. The pump ends when the websocket ends, when the peer is silent, does not read
//! or violates the protocol, when the authorization ends, and when the service is shut down. After
//! an exit it closes the websocket itself with a normal status, as a guest of version 1 expects.
//! After an exit or an abort the peer has [`CLOSE_TIMEOUT`] to close.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use metaservice_protocol::limits::{MAX_FAILURE, SHELL_WRITE_TIMEOUT};
use metaservice_protocol::shell::{Event, Keepalive, Pulse, Stream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::shared::Shared;
use super::socket::{Message, Receiver, Sender, Socket};
use crate::handle::error::ChildError;

/// How long the peer may take to close the websocket after the command's end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn run(
    socket: Socket,
    shared: Arc<Shared>,
    mut terminated: watch::Receiver<bool>,
) {
    let Socket { sender, receiver, permit: _permit, mut authorization } = socket;
    let reason = tokio::select! {
        biased;
        () = read(receiver, &shared) => ChildError::Disconnected,
        () = write(sender, &shared) => ChildError::Disconnected,
        () = closing(&shared) => ChildError::Disconnected,
        () = authorization.ended() => ChildError::Disconnected,
        Ok(_) = terminated.wait_for(|terminated| *terminated) => ChildError::Terminated,
    };
    shared.lock().closed = true;
    shared.finish(Err(reason));
    let mut state = shared.lock();
    Stream::ALL.into_iter().for_each(|stream| state.wake(stream));
}

/// Completes when the peer has not closed in time after the command's end.
async fn closing(shared: &Shared) {
    let mut end = shared.end.subscribe();
    if end.wait_for(Option::is_some).await.is_ok() {
        tokio::time::sleep(CLOSE_TIMEOUT).await;
    }
}

/// Reads until the connection ends or must be cut.
async fn read(mut receiver: Receiver, shared: &Shared) {
    let mut keepalive = Keepalive::new(now());
    loop {
        let message = match timeout_at(keepalive.deadline().into(), receiver.next()).await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(_) => match keepalive.pulse(now()) {
                Pulse::Quiet => continue,
                Pulse::Ping => {
                    shared.update(|state| state.ping_due = true);
                    continue;
                }
                Pulse::GiveUp => return,
            },
        };
        keepalive.heard(now());
        // The peer may send without a pause: a ping is due all the same.
        if keepalive.pulse(now()) == Pulse::Ping {
            shared.update(|state| state.ping_due = true);
        }
        if let Message::Binary(message) = message
            && !handle(&message, shared)
        {
            return;
        }
    }
}

/// Returns `false` if the peer must be cut.
fn handle(message: &Bytes, shared: &Shared) -> bool {
    let mut state = shared.lock();
    let event = match state.session.handle(message) {
        Ok(event) => event,
        Err(violation) => {
            tracing::warn!(%violation, "the stream of a command is cut");
            return false;
        }
    };
    match event {
        Some(Event::Readable(stream)) => {
            if state.discarded[usize::from(stream.number())] {
                while state.session.read(stream).is_some() {}
                shared.outgoing.notify_one();
            }
            state.wake(stream);
        }
        Some(Event::Writable(stream)) => state.wake(stream),
        Some(Event::Exited { success, mut detail }) => {
            detail.truncate(MAX_FAILURE);
            // A copy, which does not keep the whole message in memory.
            state.detail = Bytes::copy_from_slice(&detail);
            state.exited = true;
            drop(state);
            shared.outgoing.notify_one();
            shared.finish(Ok(success));
        }
        Some(Event::Resized { .. } | Event::Aborted | Event::Signalled(_)) | None => {}
    }
    true
}

/// Writes until the connection ends, or the peer does not read for too long.
async fn write(mut sender: Sender, shared: &Shared) {
    loop {
        let next = {
            let mut state = shared.lock();
            if std::mem::take(&mut state.ping_due) {
                Some(Message::Ping)
            } else {
                let message = state.session.next_message().map(Message::Binary);
                message.or_else(|| state.exited.then_some(Message::Close))
            }
        };
        let last = matches!(next, Some(Message::Close));
        let progress = match next {
            Some(message) if last => {
                let closed = timeout(SHELL_WRITE_TIMEOUT, sender.send(message)).await;
                if matches!(closed, Ok(Ok(()))) {
                    // `read` ends with the peer's close or the connection's end.
                    std::future::pending::<()>().await;
                }
                closed
            }
            Some(message) => timeout(SHELL_WRITE_TIMEOUT, sender.feed(message)).await,
            None => {
                let flushed = timeout(SHELL_WRITE_TIMEOUT, sender.flush()).await;
                if matches!(flushed, Ok(Ok(()))) {
                    shared.outgoing.notified().await;
                }
                flushed
            }
        };
        if !matches!(progress, Ok(Ok(()))) {
            return;
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
