//! Files from the browser to the machine of a job, in parts.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

use super::app::App;
use super::files::check;
use super::find::{Asked, running};
use super::responses::{Code, Refused, refuse, whole};
use crate::member::{Member, Target};
use crate::upload::{MAX_PART, Progress, UploadError};

/// How long a part may take to arrive.
const PART_TIMEOUT: Duration = Duration::from_secs(60);

impl From<UploadError> for Refused {
    fn from(error: UploadError) -> Self {
        let code = match error {
            UploadError::Unknown => Code::NotFound,
            UploadError::Guest(error) => return error.into(),
            UploadError::Silent | UploadError::Random(_) => Code::Failed,
            UploadError::Name(_) => Code::Invalid,
            UploadError::Busy
            | UploadError::Offset(_)
            | UploadError::TooLong
            | UploadError::TooMany => Code::Refused,
        };
        refuse(code, whole(&error))
    }
}

/// The file that comes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Begin {
    started_ms: u64,
    /// The path of the file; with a member, that of the directory that the member is in.
    path: String,
    size: u64,
    /// A file in a directory that is uploaded: its path below the directory.
    member: Option<String>,
}

/// Begins an upload.
pub(super) async fn begin(
    State(app): State<App>,
    Path(name): Path<String>,
    begin: Result<Json<Begin>, JsonRejection>,
) -> Result<Json<Value>, Refused> {
    let Json(Begin { started_ms, path, size, member }) = begin?;
    check(&path)?;
    let member = member.map(Member::new).transpose();
    let member = member.map_err(|error| refuse(Code::Invalid, error.to_string()))?;
    let client = running(&app, &name, started_ms).await?;
    let id = app.uploads.begin(client, Target { path, member, size })?;
    Ok(Json(json!({ "id": id })))
}

/// Where a part begins.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct At {
    offset: u64,
}

/// Adds a part.
pub(super) async fn add(
    State(app): State<App>,
    Path(id): Path<String>,
    at: Asked<At>,
    body: Body,
) -> Result<Json<Progress>, Refused> {
    let Query(At { offset }) = at?;
    let part = match timeout(PART_TIMEOUT, to_bytes(body, MAX_PART)).await {
        Ok(Ok(part)) => part,
        _ => return Err(refuse(Code::Invalid, "the part is too long, or does not arrive")),
    };
    // A browser that goes away meanwhile does not end the upload: it continues behind this part.
    let uploads = app.uploads.clone();
    let added = tokio::spawn(async move { uploads.add(&id, offset, part).await }).await;
    match added {
        Ok(added) => Ok(Json(added?)),
        Err(_) => Err(refuse(Code::Failed, "the upload has ended")),
    }
}

/// How far an upload is.
pub(super) async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Progress>, Refused> {
    Ok(Json(app.uploads.progress(&id)?))
}

/// Ends an upload.
pub(super) async fn end(State(app): State<App>, Path(id): Path<String>) -> StatusCode {
    app.uploads.end(&id);
    StatusCode::NO_CONTENT
}
