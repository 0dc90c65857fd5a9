//! The log of a job: its length, its lines, what matches in it, all of it.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, Query, State, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::header;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::app::App;
use super::files::plain;
use super::find::{Asked, Which};
use super::guard::Until;
use super::responses::{Code, Refused, refuse};
use super::sockets;
use crate::log::{Access, AccessError, Matches, OpenLog, Pattern, ShownLine};

/// The first answer about a log.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Opened {
    started_ms: u64,
}

/// Which attempt of a job is meant: by default, the last one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfAttempt {
    attempt: Option<u32>,
}

/// Opens the log, and says which job of this name it is of. Each attempt of a job counts as a job,
/// which has its own start.
pub(super) async fn open(
    State(app): State<App>,
    Path(name): Path<String>,
    which: Asked<OfAttempt>,
) -> Result<Json<Opened>, Refused> {
    let Query(OfAttempt { attempt }) = which?;
    let log = app.logs.open(&name, attempt).await?;
    Ok(Json(Opened { started_ms: log.started_ms() }))
}

/// Sends the length of the log after each change.
pub(super) async fn follow(
    State(app): State<App>,
    Path(name): Path<String>,
    which: Asked<Which>,
    Extension(Until(end)): Extension<Until>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refused> {
    let Query(Which { started }) = which?;
    let log = find(&app, &name, started)?;
    Ok(sockets::push(upgrade, log.progress(), end, log))
}

/// Some lines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lines {
    started: u64,
    from: u64,
    count: u64,
    /// What is marked in them.
    find: Option<String>,
}

/// Some lines of the log.
pub(super) async fn lines(
    State(app): State<App>,
    Path(name): Path<String>,
    asked: Asked<Lines>,
) -> Result<Json<Vec<ShownLine>>, Refused> {
    let Query(Lines { started, from, count, find: pattern }) = asked?;
    let log = find(&app, &name, started)?;
    let Some(pattern) = pattern else { return Ok(Json(log.lines(from, count, None).await?)) };
    let pattern = pattern.parse::<Pattern>()?;
    let lines = aside(&app, async move { log.lines(from, count, Some(pattern)).await });
    Ok(Json(lines.await??))
}

/// What is searched.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Find {
    started: u64,
    find: String,
}

/// The lines that match. Some searches run at a time; the others wait.
pub(super) async fn search(
    State(app): State<App>,
    Path(name): Path<String>,
    asked: Asked<Find>,
) -> Result<Json<Matches>, Refused> {
    let Query(Find { started, find: pattern }) = asked?;
    let log = find(&app, &name, started)?;
    let pattern = pattern.parse::<Pattern>()?;
    let matches = aside(&app, async move { log.search(pattern).await });
    Ok(Json(matches.await??))
}

/// Does work with a pattern, a limited number at a time. A pattern can take long for a line, so this
/// is on a thread of its own.
async fn aside<T: Send + 'static>(
    app: &App,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Refused> {
    let ended = || refuse(Code::Failed, "the server ends");
    let turn = app.searches.clone().acquire_owned().await.map_err(|_| ended())?;
    let runtime = Handle::current();
    let working = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        runtime.block_on(work)
    });
    working.await.map_err(|_| ended())
}

/// All of the log that is kept, as the command wrote it.
pub(super) async fn download(
    State(app): State<App>,
    Path(name): Path<String>,
    which: Asked<OfAttempt>,
) -> Result<Response, Refused> {
    let Query(OfAttempt { attempt }) = which?;
    let reader = Access::find(&*app.source, &name, attempt).await?.read(0, false).await?;
    let body = stream::try_unfold(reader, async |mut reader| {
        let next = reader.next().await.map_err(AccessError::from)?;
        Ok::<_, AccessError>(next.map(|segment| (segment.bytes, reader)))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.log\"", plain(&name))),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

fn find(app: &App, name: &str, started: u64) -> Result<Arc<OpenLog>, Refused> {
    app.logs.get(name, started).ok_or_else(|| refuse(Code::Gone, "this log is not open"))
}
