//! Files and directories, and statistics.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures_util::{TryStreamExt, stream};
use http::{HeaderMap, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use metaservice_protocol::header::JSON_LINES_TYPE;
use metaservice_protocol::limits::{MAX_STATS_INTERVAL_MS, MIN_STATS_INTERVAL_MS};
use metaservice_protocol::{DirectoryEntry, Form, Stats};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::extract::{Natural, Query};
use super::responses::{failed, refuse};
use super::served::Served;
use crate::control::error::{ApiError, Code};
use crate::control::model::{FILE_HEADER, PROBLEM_HEADER, Written};
#[cfg(feature = "openapi")]
use crate::control::paths;
use crate::handle::error::ActionError;
use crate::handle::lines::Lines;
use crate::handle::read::Reading;
use crate::handle::write::Destination;
use crate::job::artifact::Artifact;

/// The size of one read of a file.
const READ: usize = 256 * 1024;

/// A place in the guest.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub(crate) struct PathQuery {
    /// A path in the guest.
    path: String,
}

/// The absolute paths of all plain files below a directory. Each agent can do this.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::FILES, params(PathQuery), responses(
    (status = 200, body = Vec<String>),
    (status = 400, body = ApiError), (status = 404, body = ApiError), (status = 502, body = ApiError),
    (status = 503, body = ApiError), (status = 504, body = ApiError),
)))]
pub(crate) async fn list_files(
    State(served): State<Served>,
    Query(query): Query<PathQuery>,
) -> Response {
    match served.service.list(query.path).files().await {
        Ok(files) => Json(files).into_response(),
        Err(error) => failed(&error),
    }
}

/// What to list.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub(crate) struct EntriesQuery {
    /// A directory in the guest, or one file.
    path: String,
    /// Also list the entries of subdirectories, at any depth.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", param(required = false))]
    recursive: bool,
}

/// The entries of a directory with their attributes, one line of JSON each.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::ENTRIES, params(EntriesQuery), responses(
    (status = 200, body = DirectoryEntry, content_type = "application/jsonl"),
    (status = 400, body = ApiError), (status = 404, body = ApiError), (status = 409, body = ApiError),
    (status = 501, body = ApiError), (status = 502, body = ApiError), (status = 503, body = ApiError),
    (status = 504, body = ApiError),
)))]
pub(crate) async fn entries(
    State(served): State<Served>,
    Query(query): Query<EntriesQuery>,
) -> Response {
    match served.service.list(query.path).recursive(query.recursive).entries().await {
        Ok(lines) => lines_response::<DirectoryEntry>(lines),
        Err(error) => failed(&error),
    }
}

/// How often.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query, rename_all = "camelCase"))]
pub(crate) struct StatsQuery {
    /// Milliseconds between two lines, 100 to 10000; without it there is one line.
    #[cfg_attr(feature = "openapi", param(minimum = 100, maximum = 10000))]
    interval_ms: Option<u32>,
}

/// Statistics of the guest: one line of JSON now, and one at each interval.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::STATS, params(StatsQuery), responses(
    (status = 200, body = Stats, content_type = "application/jsonl"),
    (status = 400, body = ApiError), (status = 501, body = ApiError), (status = 502, body = ApiError),
    (status = 503, body = ApiError), (status = 504, body = ApiError),
)))]
pub(crate) async fn stats(
    State(served): State<Served>,
    Query(query): Query<StatsQuery>,
) -> Response {
    if query
        .interval_ms
        .is_some_and(|ms| !(MIN_STATS_INTERVAL_MS..=MAX_STATS_INTERVAL_MS).contains(&ms))
    {
        return refuse(Code::InvalidRequest, "intervalMs is a number from 100 to 10000");
    }
    let interval = query.interval_ms.map(|interval| Duration::from_millis(interval.into()));
    match served.service.stats(interval).await {
        Ok(lines) => lines_response::<Stats>(lines),
        Err(error) => failed(&error),
    }
}

/// The lines as the host understands them: what else the guest adds is left out.
fn lines_response<T: Serialize + Send + 'static>(lines: Lines<T>) -> Response {
    let body = lines.and_then(async |value| {
        let mut line = serde_json::to_vec(&value).map_err(ActionError::invalid)?;
        line.push(b'\n');
        Ok(line)
    });
    ([(header::CONTENT_TYPE, JSON_LINES_TYPE)], Body::from_stream(body)).into_response()
}

/// A file's bytes, once all of them have arrived on the host. Each agent can do this.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::ARTIFACT, params(PathQuery), responses(
    (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
    (status = 400, body = ApiError), (status = 404, body = ApiError), (status = 409, body = ApiError),
    (status = 502, body = ApiError), (status = 503, body = ApiError), (status = 504, body = ApiError),
    (status = 507, body = ApiError),
)))]
pub(crate) async fn artifact(
    State(served): State<Served>,
    Query(query): Query<PathQuery>,
) -> Response {
    match served.service.read(query.path).spool().await {
        Ok(artifact) => {
            let headers = [
                (header::CONTENT_LENGTH, artifact.len().to_string()),
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            ];
            (headers, artifact_body(artifact)).into_response()
        }
        Err(error) => failed(&error),
    }
}

fn artifact_body(artifact: Artifact) -> Body {
    Body::from_stream(stream::try_unfold(artifact, async |mut artifact| {
        let mut buffer = BytesMut::with_capacity(READ);
        let read = artifact.read_buf(&mut buffer).await?;
        std::io::Result::Ok((read > 0).then(|| (buffer.freeze(), artifact)))
    }))
}

/// In which form to read or write.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FormWord {
    /// A plain file's bytes.
    File,
    /// A tar archive of a directory, or of one file or link.
    Archive,
    /// Whichever it is.
    #[default]
    Any,
}

impl From<FormWord> for Form {
    fn from(word: FormWord) -> Self {
        match word {
            FormWord::File => Self::File,
            FormWord::Archive => Self::Archive,
            FormWord::Any => Self::Any,
        }
    }
}

/// What to read.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub(crate) struct ReadQuery {
    /// A file or directory in the guest.
    path: String,
    /// In which form.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", param(inline, required = false))]
    form: FormWord,
    /// The offset of the first byte; only with `form=file`.
    #[cfg_attr(feature = "openapi", param(value_type = Option<u64>))]
    offset: Option<Natural>,
    /// The largest number of bytes; only with `form=file`.
    #[cfg_attr(feature = "openapi", param(value_type = Option<u64>))]
    length: Option<Natural>,
    /// Whether a link at the end of the path is followed; by default, unless `form=archive`. A link
    /// that is not followed comes as an archive of itself.
    follow: Option<bool>,
    /// The name of a directory in its archive, in place of `./`: one path component.
    name: Option<String>,
}

/// A file's bytes, or a directory as a tar archive, while they arrive. A header says which, and has
/// the attributes. If the body is not complete, the connection is cut. With `TE: trailers` it ends
/// normally instead, and the trailer `Metaservice-Problem` has the error as JSON: check it.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::READ, params(ReadQuery), responses(
    (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
        headers(("Metaservice-File" = String, description = "form, size, mode and mtimeNs as JSON"))),
    (status = 400, body = ApiError), (status = 404, body = ApiError), (status = 409, body = ApiError),
    (status = 501, body = ApiError), (status = 502, body = ApiError), (status = 503, body = ApiError),
    (status = 504, body = ApiError), (status = 507, body = ApiError),
)))]
pub(crate) async fn read(
    State(served): State<Served>,
    headers: HeaderMap,
    Query(query): Query<ReadQuery>,
) -> Response {
    let ReadQuery { path, form, offset, length, follow, name } = query;
    let ranged = offset.is_some() || length.is_some();
    if ranged && !matches!(form, FormWord::File) {
        return refuse(Code::InvalidRequest, "offset and length go with form=file");
    }
    let mut request = served.service.read(path).form(form.into());
    if let Some(follow) = follow {
        request = request.follow(follow);
    }
    if let Some(name) = name {
        request = request.named(name);
    }
    if ranged {
        let number = |number: Option<Natural>| number.map(|Natural(number)| number);
        request = request.range(number(offset).unwrap_or(0), number(length));
    }
    // Not `open`: the response has the file's attributes, which version 1 does not tell.
    match request.stream().await {
        Ok(reading) => {
            let trailers = takes_trailers(&headers);
            let head = reading.head().map(|head| head.to_header()).unwrap_or_default();
            let headers = [
                (header::CONTENT_TYPE.as_str(), "application/octet-stream".to_owned()),
                (FILE_HEADER, head),
                (header::TRAILER.as_str(), PROBLEM_HEADER.to_owned()),
            ];
            (headers, reading_body(reading, trailers)).into_response()
        }
        Err(error) => failed(&error),
    }
}

/// Ends as the reading does: on an error the body is cut, or has a trailer with the error.
fn reading_body(reading: Reading, trailers: bool) -> Body {
    let frames = stream::try_unfold(Some(reading), move |reading| async move {
        let Some(mut reading) = reading else { return Ok(None) };
        let error = match reading.try_next().await {
            Ok(chunk) => return Ok(chunk.map(|chunk| (Frame::data(chunk), Some(reading)))),
            Err(error) => error,
        };
        match ApiError::from(&error).to_trailers().filter(|_| trailers) {
            Some(trailers) => Ok(Some((Frame::trailers(trailers), None))),
            None => Err(error),
        }
    });
    Body::new(StreamBody::new(frames))
}

/// Whether the client reads trailers (RFC 9110, section 10.1.4).
fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("trailers"))
}

/// Where and how to write.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query, rename_all = "camelCase"))]
pub(crate) struct WriteQuery {
    /// The path in the guest.
    path: String,
    /// `file` or `archive`.
    #[cfg_attr(feature = "openapi", param(inline))]
    form: FormWord,
    /// The name in `path` if that is a directory already.
    name: Option<String>,
    /// A file's permission bits.
    #[cfg_attr(feature = "openapi", param(maximum = 4095))]
    mode: Option<u32>,
    /// When the file was last modified, in nanoseconds since 1970.
    mtime_ns: Option<i64>,
    /// Keep the set-user-id and set-group-id bits of an archive's members.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", param(required = false))]
    set_id: bool,
}

/// Writes a file, or the content of a tar archive, to the guest.
#[cfg_attr(feature = "openapi", utoipa::path(put, path = paths::WRITE, params(WriteQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = Written),
        (status = 400, body = ApiError), (status = 404, body = ApiError), (status = 409, body = ApiError),
        (status = 501, body = ApiError), (status = 502, body = ApiError), (status = 503, body = ApiError),
        (status = 504, body = ApiError), (status = 507, body = ApiError),
    )))]
pub(crate) async fn write(
    State(served): State<Served>,
    Query(query): Query<WriteQuery>,
    body: Body,
) -> Response {
    let WriteQuery { path, form, name, mode, mtime_ns, set_id } = query;
    if matches!(form, FormWord::Any) {
        return refuse(Code::InvalidRequest, "what is written is a file or an archive");
    }
    if mode.is_some_and(|mode| mode > 0o7777) {
        return refuse(Code::InvalidRequest, "a mode has twelve bits");
    }
    let destination = Destination { path, name, form: form.into(), mode, mtime_ns, set_id };
    let chunks = body.into_data_stream().map_err(std::io::Error::other);
    let mut source = Box::pin(tokio_util::io::StreamReader::new(chunks));
    match served.service.write(destination, &mut source).await {
        Ok(length) => Json(Written { length }).into_response(),
        Err(error) => {
            // A client that still sends when the connection closes sees a broken pipe and no
            // response. So the body is read until the client has the response and closes.
            tokio::spawn(
                async move { tokio::io::copy_buf(&mut source, &mut tokio::io::sink()).await },
            );
            failed(&error)
        }
    }
}
