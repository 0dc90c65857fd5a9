//! The control API as a document for programs.

use utoipa::OpenApi;

use super::error::ApiError;
use super::model::ExecRequest;
use super::server::{attach, files, job, streams};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "metaservice control API",
        description = "A running job: its log, its files, commands beside it, its end. Served on a unix socket.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        job::job,
        job::wait,
        job::log,
        job::kill,
        job::signal,
        attach::attach,
        files::stats,
        files::list_files,
        files::entries,
        files::artifact,
        files::read,
        files::write,
        streams::shell,
        streams::exec,
        streams::exec_detached,
        streams::describe,
        streams::dial,
    ),
    components(schemas(ExecRequest, ApiError))
)]
struct Document;

/// The control API as an OpenAPI 3.1 document.
///
/// ```
/// let document = metaservice::control::openapi();
/// assert_eq!(document["openapi"], "3.1.0");
/// assert!(document["paths"]["/v1/exec"]["get"].is_object());
/// ```
#[must_use]
pub fn openapi() -> serde_json::Value {
    serde_json::to_value(Document::openapi()).unwrap_or_default()
}
