//! What is done to a job.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Path, State};
use http::StatusCode;
use metaservice::control::Killed;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::app::App;
use super::find::{ended, running, same};
use super::guard;
use super::responses::{Code, Refused, refuse};
use crate::access::users::{Role, Who};
use crate::source::{Found, Image, Trust};

/// A body that may not be valid.
type Sent<T> = Result<Json<T>, JsonRejection>;

/// Which job of a name is meant.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Which {
    started_ms: u64,
}

/// What is killed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Kill {
    started_ms: u64,
    #[serde(default)]
    what: What,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
    #[default]
    Command,
    Machine,
}

#[derive(Serialize)]
pub(super) struct KilledWhat {
    killed: Killed,
}

/// Kills the command of a job, or its machine. Answers when it was killed. A job that waits for a
/// worker never begins.
pub(super) async fn kill(
    State(app): State<App>,
    Path(name): Path<String>,
    Extension(who): Extension<Who>,
    kill: Sent<Kill>,
) -> Result<Json<KilledWhat>, Refused> {
    let Json(Kill { started_ms, what }) = kill?;
    if what == What::Machine {
        guard::check(&who, Role::Admin)?;
    }
    if let Found::Waiting(waiting) = app.source.find(&name, None).await? {
        same(waiting.job.started_ms, started_ms)?;
        app.source.cancel(&name).await?;
        return Ok(Json(KilledWhat { killed: Killed::Command }));
    }
    let client = running(&app, &name, started_ms).await?;
    let killed = match what {
        What::Command => client.kill().await?,
        What::Machine => client.kill_machine().await?,
    };
    Ok(Json(KilledWhat { killed }))
}

/// A signal for the command.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Signal {
    started_ms: u64,
    signal: u8,
}

/// Sends the command of a job a signal.
pub(super) async fn signal(
    State(app): State<App>,
    Path(name): Path<String>,
    signal: Sent<Signal>,
) -> Result<StatusCode, Refused> {
    let Json(Signal { started_ms, signal }) = signal?;
    running(&app, &name, started_ms).await?.signal(signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes what is kept of a job that has ended.
pub(super) async fn remove(
    State(app): State<App>,
    Path(name): Path<String>,
    which: Sent<Which>,
) -> Result<StatusCode, Refused> {
    let Json(Which { started_ms }) = which?;
    ended(&app, &name, started_ms).await?;
    app.source.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which jobs that have ended are removed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Old {
    /// Only those that ended longer ago than this.
    #[serde(default)]
    older_than_ms: u64,
}

/// Removes what is kept of jobs that have ended.
pub(super) async fn prune(State(app): State<App>, old: Sent<Old>) -> Result<Json<Value>, Refused> {
    let Json(Old { older_than_ms }) = old?;
    let age = Duration::from_millis(older_than_ms);
    Ok(Json(json!({ "removed": app.source.prune(age).await? })))
}

/// Starts a job that has ended again.
pub(super) async fn retry(
    State(app): State<App>,
    Path(name): Path<String>,
    Extension(who): Extension<Who>,
    which: Sent<Which>,
) -> Result<Json<Value>, Refused> {
    let Json(Which { started_ms }) = which?;
    let ended = ended(&app, &name, started_ms).await?;
    Ok(Json(json!({ "name": app.source.retry(&ended, trust(&who)).await? })))
}

/// A job to be started.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    spec: Value,
}

/// Starts a job.
pub(super) async fn run(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    new: Sent<New>,
) -> Result<Json<Value>, Refused> {
    let Json(New { spec }) = new?;
    if !spec.is_object() {
        return Err(refuse(Code::Invalid, "a description is an object"));
    }
    Ok(Json(json!({ "name": app.source.run(spec, trust(&who)).await? })))
}

/// The files of this host are for its user alone.
const fn trust(who: &Who) -> Trust {
    match who.name {
        None => Trust::Owner,
        Some(_) => Trust::User,
    }
}

/// The images that a job can use.
pub(super) async fn images(State(app): State<App>) -> Result<Json<Vec<Image>>, Refused> {
    Ok(Json(app.source.images().await?))
}
