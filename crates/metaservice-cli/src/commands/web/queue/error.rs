//! An error of a queue, for the page.

use metaservice_web::SourceError;

pub(super) fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SourceError {
    SourceError::Failed(error.into())
}
