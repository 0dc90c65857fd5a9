//! The host of one job: it gives actions to the agent, and keeps what the agent sends.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::HeaderMap;
use futures_util::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::reply::Reply;
use super::server::{Shared, serve};
use super::shell::Shell;
use crate::wait::TIMEOUT;

/// The host of one job.
#[derive(Clone)]
pub struct Host {
    /// The address that the agent connects to.
    pub address: std::net::SocketAddr,
    shared: Arc<Shared>,
}

/// Handshakes of shells wait until this is dropped.
#[must_use]
pub struct Held(Arc<Shared>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

impl Held {
    /// Waits until one more handshake waits.
    pub async fn reached(&self) {
        let reached = timeout(TIMEOUT, self.0.reached.acquire()).await;
        reached.expect("a handshake").expect("an open semaphore").forget();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.send_replace(false);
    }
}

/// The reply to `get-artifact`.
#[derive(Debug, PartialEq, Eq)]
pub enum Artifact {
    /// A file.
    File {
        /// The content.
        bytes: Vec<u8>,
        /// The announced length.
        length: Option<u64>,
    },
    /// The agent says that there is no file.
    NotFound,
    /// The connection has ended before the file.
    Broken,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Host {
    /// Serves a job with `command`.
    pub async fn start(command: &[&str]) -> Self {
        Self::start_with(command, &[]).await
    }

    /// Serves a job with `command` and `env`.
    pub async fn start_with(command: &[&str], env: &[(&str, &str)]) -> Self {
        let env: HashMap<_, _> = env.iter().copied().collect();
        let execute = serde_json::json!({ "env": env, "command": command }).to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (actions, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            execute: Mutex::new(execute),
            log_status: Mutex::new(200),
            log: watch::channel(Vec::new()).0,
            log_requests: watch::channel(0).0,
            cut_log_after: Mutex::new(None),
            result: watch::channel(None).0,
            polls: watch::channel(0).0,
            away: watch::channel(false).0,
            fetched: watch::channel(0).0,
            actions,
            queue: AsyncMutex::new(queue),
            pending: Mutex::default(),
            held: watch::channel(false).0,
            reached: Semaphore::new(0),
            cut_replies: AtomicU64::new(0),
            next: AtomicU64::new(0),
            violations: Mutex::default(),
        });
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(serve).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    /// Sets the body of the answer to `execute`.
    pub fn set_execute(&self, execute: &str) {
        *self.shared.execute.lock().unwrap() = execute.to_owned();
    }

    /// Sets the status of the answer to log requests.
    pub fn refuse_log(&self, status: u16) {
        *self.shared.log_status.lock().unwrap() = status;
    }

    /// Answers each poll with 503, also those that wait; or accepts polls again.
    pub fn set_away(&self, away: bool) {
        self.shared.away.send_replace(away);
    }

    /// Cuts the log connection once, when the log has `bytes` bytes.
    pub fn cut_log_after(&self, bytes: usize) {
        *self.shared.cut_log_after.lock().unwrap() = Some(bytes);
    }

    /// Cuts the next `count` replies, as a network card without free buffers does.
    pub fn cut_replies(&self, count: u64) {
        self.shared.cut_replies.store(count, Ordering::SeqCst);
    }

    /// The log so far.
    pub fn log(&self) -> Vec<u8> {
        self.shared.log.borrow().clone()
    }

    /// The log so far, as text.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&self.log()).into_owned()
    }

    /// How many log requests there were.
    pub fn log_requests(&self) -> u64 {
        *self.shared.log_requests.borrow()
    }

    /// Waits until the log contains `text`.
    pub async fn log_says(&self, text: &str) {
        let mut log = self.shared.log.subscribe();
        let found = log.wait_for(|log| log.windows(text.len()).any(|w| w == text.as_bytes()));
        let found = timeout(TIMEOUT, found).await.map(drop);
        assert!(found.is_ok(), "no {text:?} in {:?}", self.log_text());
    }

    /// Waits for the result. Returns whether it is success, and the `Metaservice-Result` header.
    pub async fn result(&self) -> (bool, Option<String>) {
        let mut result = self.shared.result.subscribe();
        let result = timeout(TIMEOUT, result.wait_for(Option::is_some)).await;
        result.expect("a result").unwrap().clone().unwrap()
    }

    /// Whether there is a result.
    pub fn has_result(&self) -> bool {
        self.shared.result.borrow().is_some()
    }

    /// Waits until `count` log requests have begun.
    pub async fn log_requested(&self, count: u64) {
        let mut requests = self.shared.log_requests.subscribe();
        let begun = timeout(TIMEOUT, requests.wait_for(|n| *n >= count)).await.map(drop);
        begun.expect("a log request");
    }

    /// Waits until the job was fetched `count` times.
    pub async fn fetched(&self, count: u64) {
        let mut fetched = self.shared.fetched.subscribe();
        timeout(TIMEOUT, fetched.wait_for(|n| *n >= count)).await.expect("a fetch").unwrap();
    }

    /// Waits until there were more than `count` polls.
    pub async fn polled(&self, count: u64) {
        let mut polls = self.shared.polls.subscribe();
        timeout(TIMEOUT, polls.wait_for(|n| *n > count)).await.expect("a poll").unwrap();
    }

    /// How many polls there were.
    pub fn polls(&self) -> u64 {
        *self.shared.polls.borrow()
    }

    /// Queues an action with all five fields.
    pub fn push(&self, id: &str, kind: &str, path: &str, command: Option<&[&str]>, tty: bool) {
        let action = serde_json::json!({
            "id": id, "type": kind, "path": path, "command": command, "tty": tty,
        });
        self.shared.actions.send(action.to_string()).unwrap();
    }

    async fn ask(&self, kind: &str, path: &str, command: Option<&[&str]>, tty: bool) -> Reply {
        let id = format!("a-{}", self.shared.next.fetch_add(1, Ordering::SeqCst));
        let reply = self.expect(&id);
        self.push(&id, kind, path, command, tty);
        timeout(TIMEOUT, reply).await.expect("a reply in time").expect("a reply")
    }

    /// Accepts a reply to the action `id`, and returns it when it comes.
    pub fn expect(&self, id: &str) -> oneshot::Receiver<Reply> {
        let (sender, receiver) = oneshot::channel();
        self.shared.pending.lock().unwrap().insert(id.to_owned(), sender);
        receiver
    }

    /// Fetches a file.
    pub async fn artifact(&self, path: impl AsRef<Path>) -> Artifact {
        let path = path.as_ref().to_str().unwrap();
        let Reply::Post { headers, mut body } = self.ask("get-artifact", path, None, false).await
        else {
            panic!("a shell instead of a file")
        };
        read_artifact(&headers, &mut body).await
    }

    /// Begins to fetch a file. Returns the headers, and the body to read.
    pub async fn artifact_begun(&self, path: impl AsRef<Path>) -> (HeaderMap, Body) {
        let path = path.as_ref().to_str().unwrap();
        match self.ask("get-artifact", path, None, false).await {
            Reply::Post { headers, body } => (headers, body),
            Reply::Shell(_) => panic!("a shell instead of a file"),
        }
    }

    /// Lists a directory. Returns the files, and whether the path was not found.
    pub async fn list(&self, path: impl AsRef<Path>) -> (Option<Vec<String>>, bool) {
        let path = path.as_ref().to_str().unwrap();
        let Reply::Post { headers, body } = self.ask("list-folder", path, None, false).await else {
            panic!("a shell instead of a list")
        };
        assert_eq!(headers["content-type"], "application/json");
        let body = axum::body::to_bytes(body, 10 * 1024 * 1024).await.unwrap();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let files = value["files"]
            .as_array()
            .map(|files| files.iter().map(|file| file.as_str().unwrap().to_owned()).collect());
        (files, value["notFound"].as_bool().unwrap())
    }

    /// Kills the command.
    pub async fn kill(&self) {
        let Reply::Post { body, .. } = self.ask("kill-process", "", None, false).await else {
            panic!("a shell instead of an answer")
        };
        assert!(axum::body::to_bytes(body, 1).await.unwrap().is_empty());
    }

    /// Opens a shell.
    pub async fn shell(&self, command: &[&str], tty: bool) -> Shell {
        shell(self.ask("exec-shell", "", Some(command), tty).await)
    }

    /// Lets the handshakes of shells wait.
    pub fn hold_shells(&self) -> Held {
        self.shared.held.send_replace(true);
        Held(Arc::clone(&self.shared))
    }

    /// Fails if a request was not allowed.
    pub fn assert_strict(&self) {
        let violations = self.shared.violations.lock().unwrap();
        assert!(violations.is_empty(), "{violations:?}");
    }
}

fn shell(reply: Reply) -> Shell {
    match reply {
        Reply::Shell(socket) => Shell::new(*socket),
        Reply::Post { .. } => panic!("a body instead of a shell"),
    }
}

/// Waits for the shell that answers an action.
pub async fn shell_of(reply: oneshot::Receiver<Reply>) -> Shell {
    shell(timeout(TIMEOUT, reply).await.expect("a reply in time").expect("a reply"))
}

/// Reads the rest of a file that was begun by [`Host::artifact_begun`].
pub async fn read_artifact(headers: &HeaderMap, body: &mut Body) -> Artifact {
    let mut bytes = Vec::new();
    let mut stream = std::mem::take(body).into_data_stream();
    while let Some(chunk) = timeout(TIMEOUT, stream.next()).await.expect("progress") {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(_) => return Artifact::Broken,
        }
    }
    if let Some(error) = headers.get("X-Taskcluster-Worker-Error") {
        assert_eq!(error, "file-not-found");
        assert!(bytes.is_empty());
        return Artifact::NotFound;
    }
    let length = headers.get("content-length").map(|l| l.to_str().unwrap().parse().unwrap());
    Artifact::File { bytes, length }
}

/// Makes a FIFO.
pub fn make_fifo(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
}
