//! The list of jobs, and what is done to one.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State, WebSocketUpgrade};
use axum::response::Response;
use metaservice::control::Killed;
use serde::{Deserialize, Serialize};

use super::app::App;
use super::responses::{Code, Refused, refuse};
use super::sockets;
use crate::source::Found;

/// Sends the list of jobs after each change.
pub(super) async fn follow(State(app): State<App>, upgrade: WebSocketUpgrade) -> Response {
    sockets::push(upgrade, app.jobs.clone(), app.end.clone(), ())
}

/// Which job of a name is meant.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Which {
    started_ms: u64,
}

#[derive(Serialize)]
pub(super) struct KilledWhat {
    killed: Killed,
}

/// Kills the command of a job. Answers when it was killed, or its machine has ended.
pub(super) async fn kill(
    State(app): State<App>,
    Path(name): Path<String>,
    which: Result<Json<Which>, JsonRejection>,
) -> Result<Json<KilledWhat>, Refused> {
    let Json(Which { started_ms }) = which?;
    let Found::Running(client) = app.source.find(&name).await? else {
        return Err(refuse(Code::Refused, "the job has ended"));
    };
    if client.job().await?.started_ms != started_ms {
        return Err(refuse(Code::Gone, "another job has this name now"));
    }
    Ok(Json(KilledWhat { killed: client.kill().await? }))
}
