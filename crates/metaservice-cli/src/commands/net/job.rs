//! A running job, and its errors.

use anyhow::{Context, Result};
use metaservice::control::{Client, ClientError, Code};

use crate::hints;
use crate::output::printer::Hint;

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
        Some(hint) => answer.with_context(|| Hint(hint.to_owned())),
        None => answer.map_err(Into::into),
    };
    answer.with_context(what)
}
