//! The list of jobs, and all that is known of one.

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, Query, State, WebSocketUpgrade};
use axum::response::Response;
use metaservice::control::Job;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::app::App;
use super::files::attachment;
use super::find::{Asked, Which, ended, same};
use super::guard::Until;
use super::responses::{Code, Refused, refuse};
use super::sockets;
use crate::source::{Artifact, Attempt, EndedJob, Found, WaitingJob};

/// Sends the list of jobs after each change.
pub(super) async fn follow(
    State(app): State<App>,
    Extension(Until(end)): Extension<Until>,
    upgrade: WebSocketUpgrade,
) -> Response {
    sockets::push(upgrade, app.jobs.clone(), end, ())
}

/// Sends what the jobs of the list use.
pub(super) async fn usage(
    State(app): State<App>,
    Extension(Until(end)): Extension<Until>,
    upgrade: WebSocketUpgrade,
) -> Response {
    sockets::push(upgrade, app.samples.usage(), end, ())
}

/// Sends the workers and tenants after each change.
pub(super) async fn fleet(
    State(app): State<App>,
    Extension(Until(end)): Extension<Until>,
    upgrade: WebSocketUpgrade,
) -> Response {
    sockets::push(upgrade, app.fleet.clone(), end, ())
}

/// Sends what the machine of a job uses.
pub(super) async fn stats(
    State(app): State<App>,
    Path(name): Path<String>,
    which: Asked<Which>,
    Extension(Until(end)): Extension<Until>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refused> {
    let Query(Which { started }) = which?;
    if !app.samples.has(&name, started) {
        let found = app.source.find(&name, None).await?;
        match found {
            Found::Running(client) => same(client.job().await?.started_ms, started)?,
            Found::Waiting(waiting) => same(waiting.job.started_ms, started)?,
            Found::Ended(_) => {
                return Err(refuse(Code::NotFound, "no statistics of this job are kept"));
            }
        }
    }
    Ok(sockets::push(upgrade, app.samples.chart(&name, started), end, ()))
}

/// All that is known of a job.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Details {
    job: Job,
    ended: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Why it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    console: Vec<String>,
    artifacts: Vec<Artifact>,
    #[serde(skip_serializing_if = "Value::is_null")]
    spec: Value,
    attempts: Vec<Attempt>,
    /// Whether it says what its guest connects to.
    network: bool,
}

impl Details {
    fn of(ended: EndedJob) -> Self {
        let EndedJob { job, ended_ms, end, error, console, artifacts, spec, attempts, .. } = ended;
        let (ended, network, why) = (true, ended.network.is_some(), None);
        Self { job, ended, ended_ms, end, error, why, console, artifacts, spec, attempts, network }
    }
}

/// The job of a name; that which was started then, if a time is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Maybe {
    started: Option<u64>,
}

/// Says all that is known of a job.
pub(super) async fn show(
    State(app): State<App>,
    Path(name): Path<String>,
    which: Asked<Maybe>,
) -> Result<Json<Details>, Refused> {
    let Query(Maybe { started }) = which?;
    let details = match app.source.find(&name, None).await? {
        Found::Running(client) => {
            let job = client.job().await?;
            let network = client.network_policy().await.is_ok();
            let attempts = client.attempts().to_vec();
            Details { job, network, attempts, ..Details::default() }
        }
        Found::Waiting(waiting) => {
            let WaitingJob { job, why, spec, attempts } = *waiting;
            Details { job, why, spec, attempts, ..Details::default() }
        }
        Found::Ended(ended) => Details::of(*ended),
    };
    if let Some(started) = started {
        same(details.job.started_ms, started)?;
    }
    Ok(Json(details))
}

/// An artifact by its name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    started: u64,
    name: String,
}

/// An artifact of a job that has ended.
pub(super) async fn artifact(
    State(app): State<App>,
    Path(job): Path<String>,
    named: Asked<Named>,
) -> Result<Response, Refused> {
    let Query(Named { started, name }) = named?;
    let ended = ended(&app, &job, started).await?;
    let body = app.source.artifact(&ended, &name).await?;
    Ok(attachment(&name, Body::from_stream(body)))
}
