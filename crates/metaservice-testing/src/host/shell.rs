//! The host's end of a shell, message by message (stream protocol v1).

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use tokio::time::timeout;

use crate::wait::TIMEOUT;

const BLOCK: usize = 16 * 1024;
const WINDOW: usize = 64 * 1024;

/// The host of a shell. It keeps every rule, and checks that the agent does.
#[derive(Debug)]
pub struct Shell {
    socket: WebSocket,
    /// The output so far: stdout and stderr.
    outputs: [Vec<u8>; 2],
    /// How many bytes of each output are not acknowledged.
    open: [usize; 2],
    ended: [bool; 2],
    /// How many bytes of input the agent has not acknowledged.
    in_flight: usize,
    exit: Option<u8>,
    closed: bool,
    /// Whether the host acknowledges output as it arrives.
    pub reads: bool,
}

impl Shell {
    /// Serves the shell on `socket`.
    pub fn new(socket: WebSocket) -> Self {
        Self {
            socket,
            outputs: Default::default(),
            open: [0; 2],
            ended: [false; 2],
            in_flight: 0,
            exit: None,
            closed: false,
            reads: true,
        }
    }

    async fn send(&mut self, message: Vec<u8>) {
        self.socket.send(Message::Binary(message.into())).await.unwrap();
    }

    /// Resizes the terminal.
    pub async fn resize(&mut self, columns: u16, rows: u16) {
        let ([a, b], [c, d]) = (columns.to_be_bytes(), rows.to_be_bytes());
        self.send(vec![3, a, b, c, d]).await;
    }

    /// Aborts the shell.
    pub async fn abort(&mut self) {
        self.send(vec![4]).await;
    }

    /// Sends messages that the agent has to ignore.
    pub async fn send_nonsense(&mut self) {
        for message in [&[][..], &[9, 9], &[0], &[0, 7, 1], &[3, 1], &[1, 0, 1], &[4, 1], &[5, 0]] {
            self.send(message.to_vec()).await;
        }
        self.socket.send(Message::Text("text".into())).await.unwrap();
    }

    /// Writes to stdin within the window, and reads meanwhile.
    pub async fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = bytes.len().min(BLOCK).min(WINDOW - self.in_flight);
            if count == 0 {
                self.step().await;
                continue;
            }
            self.in_flight += count;
            let (block, rest) = bytes.split_at(count);
            self.send([&[0, 0], block].concat()).await;
            bytes = rest;
        }
    }

    /// Closes stdin.
    pub async fn end_input(&mut self) {
        self.send(vec![0, 0]).await;
    }

    /// Reads one message. Returns false when the connection has ended.
    async fn step(&mut self) -> bool {
        let message = timeout(TIMEOUT, self.socket.recv()).await.expect("a message in time");
        let message = match message {
            Some(Ok(Message::Binary(message))) => message,
            Some(Ok(Message::Close(_))) => {
                self.closed = true;
                return true;
            }
            Some(Ok(_)) => return true,
            Some(Err(_)) | None => return false,
        };
        assert!(message.len() <= 20 * 1024, "a message of {} bytes", message.len());
        assert!(self.exit.is_none(), "nothing follows the exit");
        match (message[0], &message[1..]) {
            (0, [stream @ 1..=2, payload @ ..]) => {
                let n = usize::from(*stream - 1);
                assert!(!self.ended[n], "data after the end of stream {stream}");
                assert!(payload.len() <= BLOCK);
                self.ended[n] = payload.is_empty();
                self.open[n] += payload.len();
                assert!(self.open[n] <= WINDOW, "{} bytes un-acked", self.open[n]);
                self.outputs[n].extend_from_slice(payload);
                if self.reads && !payload.is_empty() {
                    self.acknowledge(n).await;
                }
            }
            (1, [0, a, b, c, d]) => {
                let count = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                assert!(count <= self.in_flight);
                self.in_flight -= count;
            }
            (5, [status @ 0..=1]) => {
                assert_eq!(self.ended, [true, true], "both outputs end before the exit");
                self.exit = Some(*status);
            }
            _ => panic!("not a message of a guest: {message:?}"),
        }
        true
    }

    async fn acknowledge(&mut self, n: usize) {
        let count = u32::try_from(std::mem::take(&mut self.open[n])).unwrap().to_be_bytes();
        let stream = u8::try_from(n + 1).unwrap();
        let message = [&[1, stream], &count[..]].concat();
        // The agent may have closed the connection.
        let _ = self.socket.send(Message::Binary(message.into())).await;
    }

    /// Acknowledges all output so far.
    pub async fn catch_up(&mut self) {
        for n in 0..2 {
            if self.open[n] > 0 {
                self.acknowledge(n).await;
            }
        }
    }

    /// What has arrived of stdout, as text.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.outputs[0]).into_owned()
    }

    /// What has arrived of stdout.
    pub fn stdout_bytes(&self) -> &[u8] {
        &self.outputs[0]
    }

    /// What has arrived of stderr, as text.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.outputs[1]).into_owned()
    }

    /// Waits until stdout contains `text`.
    pub async fn says(&mut self, text: &str) {
        while !self.stdout().contains(text) {
            assert!(self.step().await, "no {text:?} in {:?}", self.stdout());
        }
    }

    /// Waits until `count` bytes of stdout have arrived.
    pub async fn has(&mut self, count: usize) {
        while self.outputs[0].len() < count {
            assert!(self.step().await);
        }
    }

    /// Fails if a message arrives within 300 ms. A slow agent cannot make it fail.
    pub async fn assert_quiet(&mut self) {
        let quiet = timeout(Duration::from_millis(300), self.socket.recv()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }

    /// Reads to the end of the connection. Returns the exit status, if there was one, and whether
    /// the agent has sent a close message.
    pub async fn finish(&mut self) -> (Option<u8>, bool) {
        while self.step().await {}
        (self.exit, self.closed)
    }
}
