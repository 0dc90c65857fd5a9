//! `metaservice serve`, and requests of a guest to it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Child;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::finished::{Finished, finish};
use crate::wait::TIMEOUT;

/// A service that the tool runs for one job.
#[derive(Debug)]
pub struct Service {
    /// The tool.
    pub child: Child,
    /// The address that it listens at: `HOST:PORT` or `unix:PATH`.
    pub address: String,
    /// The lines of stderr after the start.
    pub stderr: Receiver<String>,
    pub(super) stdout: JoinHandle<Vec<u8>>,
}

impl Service {
    /// Opens a connection to a TCP address.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// Opens a connection, and sends `head` and `body` as they are.
    pub fn send(&self, head: &str, body: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        stream
    }

    /// Sends a request without a body. `lines` are more lines of the head, each with its end.
    /// Returns the status line and the body.
    pub fn request(&self, method: &str, path: &str, lines: &str) -> (String, String) {
        self.request_with(method, path, lines, "")
    }

    /// As [`request`](Self::request), with a body.
    pub fn request_with(
        &self,
        method: &str,
        path: &str,
        lines: &str,
        body: impl AsRef<[u8]>,
    ) -> (String, String) {
        let body = body.as_ref();
        let head = format!(
            "{method} /engine/v1/{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Content-Length: {}\r\n{lines}\r\n",
            body.len()
        );
        let mut answer = String::new();
        self.send(&head, body).read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// Takes the next action, and returns its id. `lines` are more lines of the head.
    pub fn poll(&self, lines: &str) -> String {
        let (_, body) = self.request("GET", "poll", lines);
        let action: Value = serde_json::from_str(&body).unwrap();
        assert_ne!(action["type"], "none");
        action["id"].as_str().unwrap().to_owned()
    }

    /// Fails if the service does not answer a ping.
    #[track_caller]
    pub fn assert_serving(&self) {
        assert_eq!(self.request("GET", "ping", "").0, "HTTP/1.1 200 OK");
    }

    /// The largest size of the memory of the process so far, in bytes. `None`: it has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        Some(line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024)
    }

    /// Sends a signal to the tool.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the tool ends.
    #[track_caller]
    pub fn finish(self) -> Finished {
        let mut finished = finish(self.child);
        finished.stdout = self.stdout.join().unwrap();
        finished.stderr = self.stderr.iter().collect();
        finished
    }

    /// Sends `signal`, and waits until the tool ends.
    #[track_caller]
    pub fn stop(self, signal: Signal) -> Finished {
        self.signal(signal);
        self.finish()
    }
}
