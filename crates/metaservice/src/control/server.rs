//! The serving end: requests to calls of the handle, outcomes to answers.

use axum::body::Body;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt, stream};
use http::{StatusCode, header};
use metaservice_protocol::limits::{SHELL_MESSAGE, SHELL_SILENCE_TIMEOUT, SHELL_WRITE_TIMEOUT};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::time::timeout;

use super::{Code, Job, JobState, Problem};
use crate::MetaService;
use crate::artifact::Artifact;
use crate::error::{ActionError, ArtifactError, ListFolderError};

/// How many bytes of a file are read at once.
const READ: usize = 256 * 1024;

#[derive(Clone)]
struct Served {
    name: String,
    service: MetaService,
}

/// Serves the control API of a job until the service is shut down. Whoever can open the
/// socket controls the job: its permissions are the caller's to set.
pub async fn serve(name: impl Into<String>, service: MetaService, listener: UnixListener) {
    let mut terminated = service.0.terminated.subscribe();
    let router = Router::new()
        .route("/v1/job", get(job))
        .route("/v1/kill", post(kill))
        .route("/v1/files", get(files))
        .route("/v1/artifact", get(artifact))
        .route("/v1/shell", get(shell))
        .fallback(async || refuse(Code::NoSuchEndPoint, "nothing is served at this path"))
        .with_state(Served { name: name.into(), service });
    let ended = async move {
        // An error means that the service is gone: the same.
        let _ = terminated.wait_for(|terminated| *terminated).await;
    };
    tokio::select! {
        served = axum::serve(listener, router) => {
            if let Err(error) = served {
                tracing::warn!(%error, "the control socket is no longer served");
            }
        }
        () = ended => {}
    }
}

fn refuse(code: Code, message: impl Into<String>) -> Response {
    let status = match code {
        Code::InvalidRequest => StatusCode::BAD_REQUEST,
        Code::NoSuchEndPoint | Code::NotFound => StatusCode::NOT_FOUND,
        Code::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Code::Transport => StatusCode::BAD_GATEWAY,
        Code::Terminated => StatusCode::SERVICE_UNAVAILABLE,
        Code::Storage => StatusCode::INSUFFICIENT_STORAGE,
    };
    (status, Json(Problem { code, message: message.into() })).into_response()
}

impl IntoResponse for ActionError {
    fn into_response(self) -> Response {
        let code = match &self {
            Self::TimedOut(_) => Code::TimedOut,
            Self::Transport(_) => Code::Transport,
            Self::Terminated => Code::Terminated,
        };
        refuse(code, self.to_string())
    }
}

async fn job(State(served): State<Served>) -> Json<Job> {
    let result = served.service.try_result();
    let state = match &result {
        Some(result) if result.success => JobState::Succeeded,
        Some(_) => JobState::Failed,
        None if served.service.is_fetched() => JobState::Running,
        None => JobState::Waiting,
    };
    Json(Job {
        name: served.name,
        command: served.service.0.execute.command.clone(),
        state,
        status: result.as_ref().map(crate::JobResult::status),
        ending: result.and_then(|result| result.ending),
        pid: std::process::id(),
    })
}

async fn kill(State(served): State<Served>) -> Response {
    match served.service.kill_process().await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}

#[derive(Deserialize)]
struct PathQuery {
    path: String,
}

async fn files(State(served): State<Served>, Query(query): Query<PathQuery>) -> Response {
    match served.service.list_folder(query.path).await {
        Ok(files) => Json(files).into_response(),
        Err(error @ ListFolderError::NotFound) => refuse(Code::NotFound, error.to_string()),
        Err(ListFolderError::Action(error)) => error.into_response(),
    }
}

async fn artifact(State(served): State<Served>, Query(query): Query<PathQuery>) -> Response {
    match served.service.get_artifact(query.path).await {
        Ok(artifact) => {
            let length = artifact.len();
            ([(header::CONTENT_LENGTH, length)], body(artifact)).into_response()
        }
        Err(error @ ArtifactError::NotFound) => refuse(Code::NotFound, error.to_string()),
        Err(error @ ArtifactError::Storage(_)) => refuse(Code::Storage, error.to_string()),
        Err(ArtifactError::Action(error)) => error.into_response(),
    }
}

fn body(artifact: Artifact) -> Body {
    Body::from_stream(stream::try_unfold(artifact, async |mut artifact| {
        let mut buffer = BytesMut::with_capacity(READ);
        let read = artifact.read_buf(&mut buffer).await?;
        std::io::Result::Ok((read > 0).then(|| (buffer.freeze(), artifact)))
    }))
}

#[derive(Deserialize)]
struct ShellQuery {
    command: String,
    #[serde(default)]
    tty: bool,
}

async fn shell(
    State(served): State<Served>,
    Query(query): Query<ShellQuery>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade.max_message_size(SHELL_MESSAGE).max_frame_size(SHELL_MESSAGE),
        Err(rejection) => return refuse(Code::InvalidRequest, rejection.to_string()),
    };
    let Ok(command) = serde_json::from_str(&query.command) else {
        return refuse(Code::InvalidRequest, "the command is not a JSON array of strings");
    };
    let mut terminated = served.service.0.terminated.subscribe();
    match served.service.exec_socket(command, query.tty).await {
        Ok(guest) => upgrade.on_upgrade(async move |client| {
            tokio::select! {
                () = relay(client, guest) => {}
                _ = terminated.wait_for(|terminated| *terminated) => {}
            }
        }),
        Err(error) => error.into_response(),
    }
}

/// Hands messages on in both directions, as they are. The windows are between the two
/// ends: what one has not acknowledged the other does not send, so nothing piles up here.
async fn relay(client: WebSocket, guest: WebSocket) {
    let (to_client, from_client) = client.split();
    let (to_guest, from_guest) = guest.split();
    tokio::join!(forward(from_client, to_guest), forward(from_guest, to_client));
}

type Sender = stream::SplitSink<WebSocket, axum::extract::ws::Message>;

async fn forward(mut from: stream::SplitStream<WebSocket>, mut to: Sender) {
    use axum::extract::ws::Message;
    while let Ok(Some(Ok(message))) = timeout(SHELL_SILENCE_TIMEOUT, from.next()).await {
        // Pings are answered hop by hop; ours go out so that neither hop falls silent.
        let message = match message {
            Message::Pong(_) => continue,
            Message::Ping(_) => Message::Ping(bytes::Bytes::new()),
            other => other,
        };
        let ends = matches!(message, Message::Close(_));
        let sent = timeout(SHELL_WRITE_TIMEOUT, to.send(message)).await;
        if ends || !matches!(sent, Ok(Ok(()))) {
            break;
        }
    }
    let _ = timeout(SHELL_WRITE_TIMEOUT, to.close()).await;
}
