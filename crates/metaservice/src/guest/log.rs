//! A log request: its body goes to the job's log, chunk by chunk.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use metaservice_protocol::header::LOG_HEADER;
use metaservice_protocol::{ErrorCode, LogPlace};

use crate::guest::http_error::{HttpError, not_persisted};
use crate::guest::outbox::Outbox;
use crate::job::log::{Misplaced, WriteError};
use crate::job::state::Job;

/// Receives the body. The response confirms that every byte was written and flushed.
pub(crate) async fn receive(
    job: &Job,
    request: Request,
    outbox: Outbox,
) -> Result<Response, HttpError> {
    let mut place = place(request.headers())?;
    let mut body = request.into_body();
    let failed = |error| {
        tracing::debug!(%error, "a log request fails");
        HttpError::new(ErrorCode::InternalError, "the log cannot be written")
    };
    let _request = job.log.request();
    let of_version_1 = place.is_none();
    if of_version_1 {
        job.holes.begin();
        persist_hole(job).await?;
    }
    // A log may be silent for hours: only its end or a broken connection ends it.
    while let Some(frame) = body.frame().await {
        job.contact.heard();
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(chunk)) => match &mut place {
                None => job.log.write(chunk).await.map_err(failed)?,
                Some(place) => {
                    let written = job.log.write_at(place, chunk).await;
                    written.map_err(|error| match error {
                        WriteError::Failed(error) => failed(error),
                        WriteError::Misplaced(misplaced) => invalid(misplaced),
                    })?;
                }
            },
            Ok(Err(_trailers)) => {}
            Err(error) => {
                tracing::debug!(%error, "a log request was cut");
                if of_version_1 {
                    job.holes.cut();
                }
                // Only this direction may be cut. The guest must not take a response for the
                // log's end: without one, it sends again what was not confirmed.
                outbox.abandon();
                return Err(HttpError::new(ErrorCode::InternalError, "the log was cut off"));
            }
        }
    }
    job.log.flush().await.map_err(failed)?;
    if of_version_1 {
        job.holes.end();
        persist_hole(job).await?;
    }
    Ok(StatusCode::OK.into_response())
}

/// Persists whether the log of version 1 has a hole, or has one if this process ends now.
async fn persist_hole(job: &Job) -> Result<(), HttpError> {
    if job.store.is_none() {
        return Ok(());
    }
    let holes = Arc::clone(&job.holes);
    // Evaluated where the state is written, in the order of the writes.
    job.persist(move |state| state.log_hole = holes.may_follow()).await.map_err(not_persisted)
}

/// The place of a request's body in a numbered log; `None` for version 1.
fn place(headers: &HeaderMap) -> Result<Option<LogPlace>, HttpError> {
    let Some(value) = headers.get(LOG_HEADER) else { return Ok(None) };
    match value.to_str().ok().and_then(LogPlace::from_header) {
        Some(place) => Ok(Some(place)),
        None => {
            let message = format!("{LOG_HEADER} is not a place in a log");
            Err(HttpError::new(ErrorCode::InvalidPayload, message))
        }
    }
}

fn invalid(misplaced: Misplaced) -> HttpError {
    let message = match misplaced {
        Misplaced::Gap => "what comes before this in the log has never come",
        Misplaced::TooMany => "there are too many logs",
    };
    HttpError::new(ErrorCode::InvalidPayload, message)
}
