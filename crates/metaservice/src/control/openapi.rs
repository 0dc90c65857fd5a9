//! What the control API is, for programs.

use utoipa::OpenApi;

use super::server;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "metaservice control API",
        description = "A running job: its log, its files, commands beside it, its end. Served on a unix socket.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        server::job,
        server::wait,
        server::log,
        server::kill,
        server::signal,
        server::stats,
        server::list_files,
        server::entries,
        server::artifact,
        server::read,
        server::write,
        server::shell,
        server::exec,
        server::exec_detached,
        server::describe,
        server::dial,
    ),
    components(schemas(super::ExecRequest, super::Problem))
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
