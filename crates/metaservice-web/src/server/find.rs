//! Finds the job that a request means.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::Deserialize;

use super::app::App;
use super::responses::{Code, Refused, refuse};
use crate::source::{EndedJob, Found, Reached};

/// A query that may not be valid.
pub(super) type Asked<T> = Result<Query<T>, QueryRejection>;

/// Which job of a name is meant.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    pub(super) started: u64,
}

/// The job of this name that was started then, which runs.
pub(super) async fn running(app: &App, name: &str, started: u64) -> Result<Reached, Refused> {
    match app.source.find(name, None).await? {
        Found::Running(client) => {
            same(client.job().await?.started_ms, started)?;
            Ok(client)
        }
        Found::Waiting(_) => Err(refuse(Code::Waits, "the job waits for a worker")),
        Found::Ended(_) => Err(refuse(Code::Refused, "the job has ended")),
    }
}

/// The job of this name that was started then, which has ended.
pub(super) async fn ended(app: &App, name: &str, started: u64) -> Result<Box<EndedJob>, Refused> {
    match app.source.find(name, None).await? {
        Found::Ended(ended) => {
            same(ended.job.started_ms, started)?;
            Ok(ended)
        }
        _ => Err(refuse(Code::Refused, "the job has not ended")),
    }
}

/// Refuses a job that was started at another time.
pub(super) fn same(found: u64, started: u64) -> Result<(), Refused> {
    if found != started {
        return Err(refuse(Code::Gone, "another job has this name now"));
    }
    Ok(())
}
