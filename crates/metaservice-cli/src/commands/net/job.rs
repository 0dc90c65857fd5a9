//! A running job, and its errors.

use anyhow::{Context, Error, Result};
use metaservice::control::{Client, ClientError, Code};

use crate::hints;

/// The client of a running job.
pub(super) async fn client(job: &str) -> Result<Client> {
    metaservice_sandbox::control::find(job).await.map_err(hints::control)
}

/// The answer of a job, or its error with what to do about it.
pub(super) fn answer<T>(
    answer: Result<T, ClientError>,
    what: impl FnOnce() -> String,
) -> Result<T> {
    let hint = match answer.as_ref().err().and_then(ClientError::code) {
        Some(Code::NotFound) => Some("start the job with --net-log FILE"),
        Some(Code::NoSuchEndPoint) => Some("an older metaservice runs the job"),
        _ => None,
    };
    let answer = match hint {
        // The hint is the last cause: only there it is found.
        Some(hint) => {
            answer.map_err(|error| hints::hinted(hint, format!("{:#}", Error::new(error))))
        }
        None => answer.map_err(Into::into),
    };
    answer.with_context(what)
}
