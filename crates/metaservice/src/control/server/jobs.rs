//! The list of all jobs of a user.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::watch;

use super::extract::Query;
use super::responses::refuse;
use crate::control::error::Code;
#[cfg(feature = "openapi")]
use crate::control::paths;
use crate::handle::error::BoxError;

/// Finds the jobs of a user.
pub trait Jobs: Send + Sync + 'static {
    /// The jobs that run, as a JSON array; with `all`, also those that have ended.
    ///
    /// # Errors
    /// If they cannot be found.
    fn list(&self, all: bool) -> impl Future<Output = Result<serde_json::Value, BoxError>> + Send;

    /// The control socket of the job `name`, which comes from a client.
    ///
    /// # Errors
    /// If no such job runs.
    fn socket(&self, name: &str) -> impl Future<Output = Result<PathBuf, BoxError>> + Send;
}

/// What the handlers share.
pub(crate) struct Shared<J> {
    pub(super) jobs: Arc<J>,
    /// Its sender goes when the socket is no longer served.
    pub(super) ended: watch::Receiver<()>,
}

impl<J> Clone for Shared<J> {
    fn clone(&self) -> Self {
        Self { jobs: Arc::clone(&self.jobs), ended: self.ended.clone() }
    }
}

/// Which jobs.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub(crate) struct JobsQuery {
    /// Also those that have ended, as far as they are kept.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", param(required = false))]
    all: bool,
}

/// The jobs of this user. Only at the socket of `metaservice api`.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::JOBS, operation_id = "jobs", params(JobsQuery), responses(
    (status = 200, body = Vec<crate::control::Job>, description = "as the state of each job; one that does not answer has only a name, the state `silent` and a process id"),
    (status = 400, body = crate::control::error::ApiError),
    (status = 502, body = crate::control::error::ApiError),
)))]
pub(crate) async fn list<J: Jobs>(
    State(Shared { jobs, .. }): State<Shared<J>>,
    Query(query): Query<JobsQuery>,
) -> Response {
    match jobs.list(query.all).await {
        Ok(jobs) => Json(jobs).into_response(),
        Err(error) => refuse(Code::Transport, error.to_string()),
    }
}
