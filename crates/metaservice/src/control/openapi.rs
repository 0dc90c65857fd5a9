//! The control API as a document for programs.

use metaservice_protocol::header::JSON_LINES_TYPE;
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::error::ApiError;
use super::model::ExecRequest;
use super::paths;
use super::server::job::WaitFor;
use super::server::{attach, files, job, jobs, network, run, streams};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "metaservice control API",
        description = "A running job: its log, its files, commands beside it, its end. Served on a unix socket.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers(
        (url = "http://localhost/v1", description = "a job, at its control socket"),
        (
            url = "http://localhost/v1/jobs/{job}",
            description = "a job, at the socket of metaservice api",
            variables(("job" = (default = "job", description = "the name of the job"))),
        ),
    ),
    paths(
        jobs::list,
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
        run::run,
        streams::shell,
        streams::exec,
        streams::exec_detached,
        streams::describe,
        streams::dial,
        network::policy,
        network::set_policy,
        network::log,
        network::publish,
    ),
    components(schemas(ExecRequest, WaitFor, ApiError))
)]
struct Document;

/// The control API as an OpenAPI 3.1 document.
///
/// Its paths are relative to its servers: a job at its control socket, and a job at the socket of
/// `metaservice api`.
///
/// ```
/// let document = metaservice::control::openapi();
/// assert_eq!(document["openapi"], "3.1.0");
/// assert_eq!(document["servers"][0]["url"], "http://localhost/v1");
/// assert!(document["paths"]["/exec"]["get"].is_object());
/// ```
#[must_use]
pub fn openapi() -> Value {
    let mut document = serde_json::to_value(Document::openapi()).unwrap_or_default();
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        let all = std::mem::take(paths).into_iter();
        paths.extend(all.map(|(path, methods)| match path.strip_prefix(paths::PREFIX) {
            Some(relative) => (relative.to_owned(), methods),
            None => (path, methods),
        }));
        for operation in paths.values_mut().flat_map(members) {
            complete(operation.1);
        }
    }
    document
}

fn members(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flatten()
}

/// Adds what the attributes of the handlers have no words for.
fn complete(operation: &mut Value) {
    if let Some(content) = operation.pointer_mut("/requestBody/content") {
        bytes(content);
    }
    let Some(responses) = operation.get_mut("responses") else { return };
    for (status, response) in members(responses) {
        let status = http::StatusCode::from_bytes(status.as_bytes()).ok();
        let Some(response) = response.as_object_mut() else { continue };
        // Each response has a description.
        let reason = status.and_then(|status| status.canonical_reason()).unwrap_or_default();
        response.entry("description").or_insert_with(|| json!(reason));
        response.get_mut("content").into_iter().for_each(bytes);
    }
}

/// Bodies that are no JSON value: bytes, and lines of JSON. `x-itemSchema` is of one line.
fn bytes(content: &mut Value) {
    for (content_type, media) in members(content) {
        match content_type.as_str() {
            "application/octet-stream" => {
                media["schema"] = json!({ "type": "string", "format": "binary" });
            }
            JSON_LINES_TYPE => {
                let item = std::mem::replace(&mut media["schema"], json!({ "type": "string" }));
                if item.get("$ref").is_some() {
                    media["x-itemSchema"] = item;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_response_is_described_and_bytes_are_binary() {
        let mut document = openapi();
        let mut operations = std::collections::BTreeSet::new();
        for (path, methods) in members(&mut document["paths"]) {
            assert!(!path.starts_with(paths::PREFIX), "{path} is not relative to the servers");
            for (_, operation) in members(methods) {
                let id = operation["operationId"].as_str().unwrap().to_owned();
                assert!(operations.insert(id.clone()), "two operations are {id}");
                for (status, response) in members(&mut operation["responses"]) {
                    let description = response["description"].as_str().unwrap_or_default();
                    assert!(!description.is_empty(), "{status}");
                }
            }
        }
        assert!(operations.len() > 15, "{operations:?}");
        assert_eq!(
            document.pointer("/paths/~1stats/get/responses/200/content"),
            Some(&json!({
                JSON_LINES_TYPE: {
                    "schema": { "type": "string" },
                    "x-itemSchema": { "$ref": "#/components/schemas/Stats" },
                },
            }))
        );
        let binary = json!({ "schema": { "type": "string", "format": "binary" } });
        let body = "/requestBody/content/application~1octet-stream";
        assert_eq!(document.pointer(&format!("/paths/~1write/put{body}")), Some(&binary));
    }
}
