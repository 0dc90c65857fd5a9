//! The end-points of the host.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::reply::Reply;

/// What the end-points and the methods of the host share.
pub(super) struct Shared {
    pub(super) execute: Mutex<String>,
    /// The status of the answer to log requests. 200 accepts the log.
    pub(super) log_status: Mutex<u16>,
    pub(super) log: watch::Sender<Vec<u8>>,
    pub(super) log_requests: watch::Sender<u64>,
    /// How many bytes of the log arrive before the connection is cut, once.
    pub(super) cut_log_after: Mutex<Option<usize>>,
    pub(super) result: watch::Sender<Option<(bool, Option<String>)>>,
    pub(super) polls: watch::Sender<u64>,
    /// Whether polls are answered with 503.
    pub(super) away: watch::Sender<bool>,
    pub(super) fetched: watch::Sender<u64>,
    pub(super) actions: mpsc::UnboundedSender<String>,
    pub(super) queue: AsyncMutex<mpsc::UnboundedReceiver<String>>,
    pub(super) pending: Mutex<HashMap<String, oneshot::Sender<Reply>>>,
    /// Whether handshakes of shells wait. `reached` has one permit for each that does.
    pub(super) held: watch::Sender<bool>,
    pub(super) reached: Semaphore,
    /// How many replies are cut before they are read.
    pub(super) cut_replies: AtomicU64,
    pub(super) next: AtomicU64,
    pub(super) violations: Mutex<Vec<String>>,
}

fn error(status: u16, code: &str) -> Response {
    let body = serde_json::json!({ "code": code, "message": format!("{code} it is") });
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

/// Serves one request.
pub(super) async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
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
        // These may be announced. Every other extension has to be negotiated.
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
            // A panic drops the connection without an answer.
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
    // The answer waits for the whole body, as it does in a host that stores it.
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
