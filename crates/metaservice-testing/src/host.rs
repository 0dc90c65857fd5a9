//! A strict host of version 1, written from the protocol page alone, and an agent under it.
//!
//! It serves nothing but the page's end-points, knows no extension, and remembers every
//! request that the page does not allow.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

mod agent;
mod shell;

pub use agent::Agent;
pub use shell::Shell;

use crate::wait::TIMEOUT;

/// What an agent has answered to an action.
pub enum Reply {
    Post { headers: HeaderMap, body: Body },
    Shell(Box<WebSocket>),
}

struct Shared {
    execute: Mutex<String>,
    /// The status for log requests; 200 takes them.
    log_status: Mutex<u16>,
    log: watch::Sender<Vec<u8>>,
    log_requests: watch::Sender<u64>,
    /// How much of the log is taken before the connection is cut, once.
    cut_log_after: Mutex<Option<usize>>,
    result: watch::Sender<Option<(bool, Option<String>)>>,
    polls: watch::Sender<u64>,
    /// Whether polls are refused, as by a host that is away.
    away: watch::Sender<bool>,
    fetched: watch::Sender<u64>,
    actions: mpsc::UnboundedSender<String>,
    queue: AsyncMutex<mpsc::UnboundedReceiver<String>>,
    pending: Mutex<HashMap<String, oneshot::Sender<Reply>>>,
    /// Whether shells' handshakes are held up, and one permit for each that is.
    held: watch::Sender<bool>,
    reached: Semaphore,
    /// How many replies are cut before anything is read of them.
    cut_replies: AtomicU64,
    next: AtomicU64,
    violations: Mutex<Vec<String>>,
}

/// The host of one job.
#[derive(Clone)]
pub struct Host {
    pub address: std::net::SocketAddr,
    shared: Arc<Shared>,
}

/// Shells' handshakes are held up until this is dropped.
pub struct Held(Arc<Shared>);

impl Held {
    /// Waits for another one.
    pub async fn reached(&self) {
        let reached = timeout(TIMEOUT, self.0.reached.acquire()).await;
        reached.expect("a handshake").expect("nobody closes it").forget();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.send_replace(false);
    }
}

/// A get-artifact reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Artifact {
    File { bytes: Vec<u8>, length: Option<u64> },
    NotFound,
    Broken,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Host {
    /// Serves a job with this command.
    pub async fn start(command: &[&str]) -> Self {
        Self::start_with(command, &[]).await
    }

    /// Serves a job with this command and environment.
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

    pub fn set_execute(&self, execute: &str) {
        *self.shared.execute.lock().unwrap() = execute.to_owned();
    }

    pub fn refuse_log(&self, status: u16) {
        *self.shared.log_status.lock().unwrap() = status;
    }

    /// Refuses polls from now on, those that wait too; or takes them again.
    pub fn set_away(&self, away: bool) {
        self.shared.away.send_replace(away);
    }

    pub fn cut_log_after(&self, bytes: usize) {
        *self.shared.cut_log_after.lock().unwrap() = Some(bytes);
    }

    /// Cuts the next so many replies, as a flooded network card does.
    pub fn cut_replies(&self, count: u64) {
        self.shared.cut_replies.store(count, Ordering::SeqCst);
    }

    pub fn log(&self) -> Vec<u8> {
        self.shared.log.borrow().clone()
    }

    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&self.log()).into_owned()
    }

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

    /// Waits for the result: whether it is success, and the value of our header.
    pub async fn result(&self) -> (bool, Option<String>) {
        let mut result = self.shared.result.subscribe();
        let result = timeout(TIMEOUT, result.wait_for(Option::is_some)).await;
        result.expect("a result").unwrap().clone().unwrap()
    }

    pub fn has_result(&self) -> bool {
        self.shared.result.borrow().is_some()
    }

    /// Waits until `count` log requests have begun.
    pub async fn log_requested(&self, count: u64) {
        let mut requests = self.shared.log_requests.subscribe();
        let begun = timeout(TIMEOUT, requests.wait_for(|n| *n >= count)).await.map(drop);
        begun.expect("a log request");
    }

    /// Waits until the job has been fetched `count` times.
    pub async fn fetched(&self, count: u64) {
        let mut fetched = self.shared.fetched.subscribe();
        timeout(TIMEOUT, fetched.wait_for(|n| *n >= count)).await.expect("a fetch").unwrap();
    }

    pub fn polls(&self) -> u64 {
        *self.shared.polls.borrow()
    }

    /// Queues an action, with all five fields.
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

    /// Makes `id` pending.
    pub fn expect(&self, id: &str) -> oneshot::Receiver<Reply> {
        let (sender, receiver) = oneshot::channel();
        self.shared.pending.lock().unwrap().insert(id.to_owned(), sender);
        receiver
    }

    pub async fn artifact(&self, path: impl AsRef<Path>) -> Artifact {
        let path = path.as_ref().to_str().unwrap();
        let Reply::Post { headers, mut body } = self.ask("get-artifact", path, None, false).await
        else {
            panic!("a shell instead of a file")
        };
        read_artifact(&headers, &mut body).await
    }

    /// The reply as far as it has come: the headers and the body to be read.
    pub async fn artifact_begun(&self, path: impl AsRef<Path>) -> (HeaderMap, Body) {
        let path = path.as_ref().to_str().unwrap();
        match self.ask("get-artifact", path, None, false).await {
            Reply::Post { headers, body } => (headers, body),
            Reply::Shell(_) => panic!("a shell instead of a file"),
        }
    }

    /// The files of a list, and whether the path was not found.
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

    pub async fn kill(&self) {
        let Reply::Post { body, .. } = self.ask("kill-process", "", None, false).await else {
            panic!("a shell instead of an answer")
        };
        assert!(axum::body::to_bytes(body, 1).await.unwrap().is_empty());
    }

    pub async fn shell(&self, command: &[&str], tty: bool) -> Shell {
        shell(self.ask("exec-shell", "", Some(command), tty).await)
    }

    pub fn hold_shells(&self) -> Held {
        self.shared.held.send_replace(true);
        Held(Arc::clone(&self.shared))
    }

    /// Everything that came was allowed.
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

/// The shell that answers an action.
pub async fn shell_of(reply: oneshot::Receiver<Reply>) -> Shell {
    shell(timeout(TIMEOUT, reply).await.expect("a reply in time").expect("a reply"))
}

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

fn error(status: u16, code: &str) -> Response {
    let body = serde_json::json!({ "code": code, "message": format!("{code} it is") });
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let violation = |what: &str| {
        shared.violations.lock().unwrap().push(format!("{method} {path}: {what}"));
    };
    let allowed: &[Method] = match path.as_str() {
        "/engine/v1/execute" | "/engine/v1/poll" | "/engine/v1/ping" => &[Method::GET],
        "/engine/v1/log" | "/engine/v1/list-folder" => &[Method::POST],
        "/engine/v1/success" | "/engine/v1/failed" => &[Method::PUT],
        "/engine/v1/reply" => &[Method::GET, Method::POST],
        _ => {
            violation("no such end-point");
            return error(404, "NoSuchEndPoint");
        }
    };
    if !allowed.contains(&method) {
        violation("method");
        return error(405, "MethodNotAllowed");
    }
    for name in request.headers().keys().map(axum::http::HeaderName::as_str) {
        // What is said before anybody has asked; everything else of ours has to be negotiated.
        let allowed = match path.rsplit('/').next().unwrap_or_default() {
            "execute" | "poll" => name == "metaservice-agent",
            "success" | "failed" => name == "metaservice-result",
            _ => false,
        };
        if !allowed && (name.starts_with("metaservice") || name == "sec-websocket-protocol") {
            violation(name);
        }
    }
    match path.as_str() {
        "/engine/v1/execute" => {
            shared.fetched.send_modify(|n| *n += 1);
            shared.execute.lock().unwrap().clone().into_response()
        }
        "/engine/v1/log" => log(&shared, request).await,
        "/engine/v1/success" => resolve(&shared, true, request.headers()),
        "/engine/v1/failed" => resolve(&shared, false, request.headers()),
        "/engine/v1/poll" => poll(&shared).await,
        "/engine/v1/reply" => reply(&shared, request).await,
        _ => ().into_response(),
    }
}

async fn log(shared: &Shared, request: Request) -> Response {
    shared.log_requests.send_modify(|n| *n += 1);
    let status = *shared.log_status.lock().unwrap();
    if status != 200 {
        return error(status, "InternalError");
    }
    let mut body = request.into_body().into_data_stream();
    while let Some(chunk) = body.next().await {
        let Ok(mut chunk) = chunk else { return error(500, "InternalError") };
        let have = shared.log.borrow().len();
        let cut = shared.cut_log_after.lock().unwrap().take_if(|at| have + chunk.len() >= *at);
        if let Some(at) = cut {
            chunk.truncate(at - have);
        }
        shared.log.send_modify(|log| log.extend_from_slice(&chunk));
        if cut.is_some() {
            // Drops the connection: nothing is answered.
            panic!("the log's connection is cut, as the test wants it");
        }
    }
    StatusCode::OK.into_response()
}

fn resolve(shared: &Shared, success: bool, headers: &HeaderMap) -> Response {
    let header = headers.get("Metaservice-Result").map(|v| v.to_str().unwrap().to_owned());
    let mut answer = StatusCode::OK.into_response();
    shared.result.send_modify(|result| match result {
        None => *result = Some((success, header)),
        Some((before, _)) if *before == success => {}
        Some(_) => answer = error(409, "ResourceConflict"),
    });
    answer
}

async fn poll(shared: &Shared) -> Response {
    shared.polls.send_modify(|polls| *polls += 1);
    let mut away = shared.away.subscribe();
    let next = async {
        let mut queue = shared.queue.lock().await;
        timeout(Duration::from_secs(30), queue.recv()).await
    };
    let next = tokio::select! {
        biased;
        _ = away.wait_for(|away| *away) => return error(503, "Away"),
        next = next => next,
    };
    match next {
        Ok(Some(action)) => action.into_response(),
        _ => {
            let id = shared.next.fetch_add(1, Ordering::SeqCst);
            let none = serde_json::json!({
                "id": format!("n-{id}"), "type": "none", "path": "", "command": null, "tty": false,
            });
            none.to_string().into_response()
        }
    }
}

async fn reply(shared: &Arc<Shared>, request: Request) -> Response {
    let less = |count: u64| count.checked_sub(1);
    let cut = shared.cut_replies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    assert!(cut.is_err(), "the reply's connection is cut, as the test wants it");
    let (mut parts, body) = request.into_parts();
    let query = Query::<HashMap<String, String>>::try_from_uri(&parts.uri);
    let id = query.ok().and_then(|query| query.0.get("id").cloned()).unwrap_or_default();
    let Some(pending) = shared.pending.lock().unwrap().remove(&id) else {
        return error(400, "UnknownActionId");
    };
    if parts.method == Method::GET {
        let mut held = shared.held.subscribe();
        if *held.borrow() {
            shared.reached.add_permits(1);
        }
        let _ = held.wait_for(|held| !held).await;
        return match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(upgrade) => upgrade.on_upgrade(move |socket| async move {
                let _ = pending.send(Reply::Shell(Box::new(socket)));
            }),
            Err(refused) => refused.into_response(),
        };
    }
    // The answer comes when the body has: as a host that keeps it does.
    let (relay, sent) = mpsc::channel::<Result<Bytes, axum::Error>>(1);
    let relayed = futures_util::stream::unfold(sent, |mut sent| async move {
        sent.recv().await.map(|chunk| (chunk, sent))
    });
    let reply = Reply::Post { headers: parts.headers, body: Body::from_stream(relayed) };
    let _ = pending.send(reply);
    let mut body = body.into_data_stream();
    while let Some(chunk) = body.next().await {
        if relay.send(chunk).await.is_err() {
            break;
        }
    }
    StatusCode::OK.into_response()
}

pub fn make_fifo(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success());
}
