//! QEMU's monitor: commands with answers, and events.
//!
//! Owns the client side of the protocol over one connected stream. [`message`] decodes lines, this
//! module matches answers to commands. It does not know what a command means.
//!
//! A line has at most [`MAX_LINE`] bytes. QEMU is trusted more than its guest. But if a guest has
//! broken into QEMU, it must not get further this way.

pub(crate) mod message;

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metaservice_private::lock;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use message::{Event, Message};

/// The longest line that is read: 1 MiB.
const MAX_LINE: usize = 1024 * 1024;

/// How long a command waits for its answer. QEMU answers in milliseconds, unless it is frozen.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A monitor command that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    #[error("QEMU refused {command}: {description}")]
    Refused { command: &'static str, description: String },
    #[error("QEMU's monitor is gone")]
    Closed,
    #[error("QEMU did not answer {0}")]
    TimedOut(&'static str),
    #[error("QEMU's monitor cannot be written to")]
    Write(#[source] io::Error),
}

type Answer = Result<Value, String>;
type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// The client.
#[derive(Debug)]
pub(crate) struct Monitor {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    pending: Pending,
    next: AtomicU64,
}

impl Monitor {
    /// Takes a connected stream. `observe` gets each event, in order. The task ends with the
    /// stream. Call [`greet`](Self::greet) before other commands.
    pub(crate) fn new(
        stream: UnixStream,
        observe: impl FnMut(Event) + Send + 'static,
    ) -> (Self, JoinHandle<()>) {
        let (reader, writer) = stream.into_split();
        let pending = Pending::default();
        let task = tokio::spawn(read(reader, Arc::clone(&pending), observe));
        (Self { writer: writer.into(), pending, next: AtomicU64::new(1) }, task)
    }

    /// Ends the negotiation at the start of a connection.
    pub(crate) async fn greet(&self, limit: Duration) -> Result<(), QmpError> {
        // QEMU accepts commands before it has sent its greeting, so there is no need to wait for
        // that.
        self.execute_within("qmp_capabilities", limit).await.map(drop)
    }

    /// Runs a command without arguments. It waits for the answer for at most [`ANSWER_TIMEOUT`]. If
    /// the future is dropped, the command may have been sent.
    pub(crate) async fn execute(&self, command: &'static str) -> Result<Value, QmpError> {
        self.execute_within(command, ANSWER_TIMEOUT).await
    }

    /// Runs a command with arguments, as [`execute`](Self::execute).
    pub(crate) async fn execute_with(
        &self,
        command: &'static str,
        arguments: Value,
    ) -> Result<Value, QmpError> {
        self.exchange(command, Some(arguments), None, ANSWER_TIMEOUT).await
    }

    /// Gives QEMU a descriptor, under a name for later commands.
    pub(crate) async fn give(
        &self,
        name: &'static str,
        descriptor: BorrowedFd<'_>,
    ) -> Result<(), QmpError> {
        let arguments = json!({ "fdname": name });
        let given = self.exchange("getfd", Some(arguments), Some(descriptor), ANSWER_TIMEOUT);
        given.await.map(drop)
    }

    async fn execute_within(
        &self,
        command: &'static str,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        self.exchange(command, None, None, limit).await
    }

    async fn exchange(
        &self,
        command: &'static str,
        arguments: Option<Value>,
        descriptor: Option<BorrowedFd<'_>>,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        let (sender, answer) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let _forget = Forget { pending: &self.pending, id };
        lock(&self.pending).insert(id, sender);
        let mut message = json!({ "execute": command, "id": id });
        if let Some(arguments) = arguments {
            message["arguments"] = arguments;
        }
        let line = format!("{message}\n");
        let exchange = async {
            // One write for a line that fits into the socket's buffer, so that no half line is
            // sent.
            let mut writer = self.writer.lock().await;
            let sent = match descriptor {
                Some(descriptor) => send_with(&writer, line.as_bytes(), descriptor).await,
                None => Ok(0),
            };
            let sent = sent.map_err(QmpError::Write)?;
            writer.write_all(&line.as_bytes()[sent..]).await.map_err(QmpError::Write)?;
            drop(writer);
            match answer.await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(description)) => Err(QmpError::Refused { command, description }),
                Err(_) => Err(QmpError::Closed),
            }
        };
        tokio::time::timeout(limit, exchange).await.unwrap_or(Err(QmpError::TimedOut(command)))
    }
}

/// Sends a descriptor with the first bytes, and returns their number.
async fn send_with(
    writer: &OwnedWriteHalf,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<usize> {
    let stream: &UnixStream = writer.as_ref();
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        let bytes = [IoSlice::new(bytes)];
        Ok(sendmsg(stream, &bytes, &mut ancillary, SendFlags::NOSIGNAL)?)
    };
    stream.async_io(Interest::WRITABLE, send).await
}

/// Removes a command from the list of those that wait, however the wait ends.
struct Forget<'a> {
    pending: &'a Pending,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.pending).remove(&self.id);
    }
}

async fn read(reader: OwnedReadHalf, pending: Pending, mut observe: impl FnMut(Event)) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = MAX_LINE as u64 + 1;
        match (&mut reader).take(limit).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(count) if count > MAX_LINE => {
                tracing::warn!("QEMU's monitor sent a line that is too long");
                break;
            }
            Ok(_) => {}
        }
        match Message::decode(&line) {
            Message::Answer { id, answer } => {
                if let Some(sender) = lock(&pending).remove(&id) {
                    // The caller may not wait any more.
                    let _ = sender.send(answer);
                }
            }
            Message::Event(event) => {
                tracing::debug!(name = %event.name, "event");
                observe(event);
            }
            Message::Other => {}
        }
    }
    // This drops the senders, which wakes all that wait.
    lock(&pending).clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor() -> (Monitor, BufReader<UnixStream>, Arc<Mutex<Vec<String>>>) {
        let (host, qemu) = UnixStream::pair().unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        let (monitor, _) = Monitor::new(host, move |event| seen.lock().unwrap().push(event.name));
        (monitor, BufReader::new(qemu), events)
    }

    async fn request(qemu: &mut BufReader<UnixStream>) -> Value {
        let mut line = String::new();
        qemu.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn say(qemu: &mut BufReader<UnixStream>, line: &str) {
        qemu.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn answers_find_their_commands_in_any_order() {
        let (monitor, mut qemu, events) = monitor();
        let script = async {
            say(&mut qemu, r#"{"QMP": {"version": {}, "capabilities": []}}"#).await;
            let first = request(&mut qemu).await;
            let second = request(&mut qemu).await;
            assert_eq!(first["execute"], "stop");
            say(&mut qemu, r#"{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}"#)
                .await;
            say(&mut qemu, &json!({"return": 2, "id": second["id"]}).to_string()).await;
            say(
                &mut qemu,
                &json!({"error": {"class": "X", "desc": "no"}, "id": first["id"]}).to_string(),
            )
            .await;
        };
        let (first, second, ()) =
            tokio::join!(monitor.execute("stop"), monitor.execute("cont"), script);
        assert!(
            matches!(first, Err(QmpError::Refused { command: "stop", description }) if description == "no")
        );
        assert_eq!(second.unwrap(), 2);
        assert_eq!(*events.lock().unwrap(), ["STOP"]);
        assert!(lock(&monitor.pending).is_empty());
    }

    #[tokio::test]
    async fn a_monitor_that_goes_wakes_who_waits() {
        let (monitor, mut qemu, _) = monitor();
        let script = async move { drop(request(&mut qemu).await) };
        let (answer, ()) = tokio::join!(monitor.execute("quit"), script);
        assert!(matches!(answer, Err(QmpError::Closed)));
        let after = monitor.execute("quit").await;
        assert!(matches!(after, Err(QmpError::Write(_) | QmpError::Closed)), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_monitor_that_is_silent_is_not_waited_for_for_ever() {
        let (monitor, _qemu, _) = monitor();
        assert!(matches!(monitor.execute("quit").await, Err(QmpError::TimedOut("quit"))));
    }

    #[tokio::test]
    async fn a_line_without_end_is_the_end() {
        let (monitor, mut qemu, _) = monitor();
        let script = async move {
            let flood = vec![b'x'; MAX_LINE + 2];
            let _ = qemu.get_mut().write_all(&flood).await;
            qemu
        };
        let (answer, _qemu) = tokio::join!(monitor.execute("quit"), script);
        assert!(matches!(answer, Err(QmpError::Closed)));
    }
}
