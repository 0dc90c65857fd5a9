//! Files, folders, and other lines that come from the guest.

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
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::super::{Code, FILE_HEADER, PROBLEM_HEADER, Problem, Written};
use super::Served;
use super::problem::{Natural, Query, refuse};
use crate::handle::actions::{Destination, ExtensionError, Lines, Reading};
use crate::job::artifact::Artifact;

/// How many bytes of a file are read at once.
const READ: usize = 256 * 1024;

/// Where in the guest.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PathQuery {
    /// A path in the guest.
    path: String,
}

/// The plain files below a folder, as absolute paths. Any agent can do this.
#[utoipa::path(get, path = "/v1/files", params(PathQuery), responses(
    (status = 200, body = Vec<String>),
    (status = 400, body = Problem), (status = 404, body = Problem), (status = 502, body = Problem),
    (status = 503, body = Problem), (status = 504, body = Problem),
))]
pub(crate) async fn list_files(
    State(served): State<Served>,
    Query(query): Query<PathQuery>,
) -> Response {
    match served.service.list_folder(query.path).await {
        Ok(files) => Json(files).into_response(),
        Err(error) => error.into_response(),
    }
}

/// Which entries.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EntriesQuery {
    /// A folder in the guest, or one file.
    path: String,
    /// Also what is below its folders.
    #[serde(default)]
    #[param(required = false)]
    recursive: bool,
}

/// The entries of a folder with their attributes, one line of JSON each.
#[utoipa::path(get, path = "/v1/entries", params(EntriesQuery), responses(
    (status = 200, body = DirectoryEntry, content_type = "application/jsonl"),
    (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
    (status = 501, body = Problem), (status = 502, body = Problem), (status = 503, body = Problem),
    (status = 504, body = Problem),
))]
pub(crate) async fn entries(
    State(served): State<Served>,
    Query(query): Query<EntriesQuery>,
) -> Response {
    match served.service.list(query.path, query.recursive).await {
        Ok(lines) => lines_response::<DirectoryEntry>(lines),
        Err(error) => error.into_response(),
    }
}

/// How often.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(crate) struct StatsQuery {
    /// Milliseconds between two lines, 100 to 10000; without it there is one line.
    #[param(minimum = 100, maximum = 10000)]
    interval_ms: Option<u32>,
}

/// What the guest is doing, one line of JSON now and one every interval.
#[utoipa::path(get, path = "/v1/stats", params(StatsQuery), responses(
    (status = 200, body = Stats, content_type = "application/jsonl"),
    (status = 400, body = Problem), (status = 501, body = Problem), (status = 502, body = Problem),
    (status = 503, body = Problem), (status = 504, body = Problem),
))]
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
        Err(error) => error.into_response(),
    }
}

/// The lines as they were understood, not as they came: what the guest adds goes no further.
fn lines_response<T>(lines: Lines<T>) -> Response
where
    T: DeserializeOwned + Serialize + 'static,
{
    let body = stream::try_unfold(lines, async |mut lines| {
        let Some(value) = lines.next().await? else { return Ok(None) };
        let mut line =
            serde_json::to_vec(&value).map_err(|error| ExtensionError::Invalid(error.into()))?;
        line.push(b'\n');
        Ok::<_, ExtensionError>(Some((line, lines)))
    });
    ([(header::CONTENT_TYPE, JSON_LINES_TYPE)], Body::from_stream(body)).into_response()
}

/// A file's bytes, once all of them have come to the host. Any agent can do this.
#[utoipa::path(get, path = "/v1/artifact", params(PathQuery), responses(
    (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
    (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
    (status = 502, body = Problem), (status = 503, body = Problem), (status = 504, body = Problem),
    (status = 507, body = Problem),
))]
pub(crate) async fn artifact(
    State(served): State<Served>,
    Query(query): Query<PathQuery>,
) -> Response {
    match served.service.get_artifact(query.path).await {
        Ok(artifact) => {
            let headers = [
                (header::CONTENT_LENGTH, artifact.len().to_string()),
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            ];
            (headers, artifact_body(artifact)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

fn artifact_body(artifact: Artifact) -> Body {
    Body::from_stream(stream::try_unfold(artifact, async |mut artifact| {
        let mut buffer = BytesMut::with_capacity(READ);
        let read = artifact.read_buf(&mut buffer).await?;
        std::io::Result::Ok((read > 0).then(|| (buffer.freeze(), artifact)))
    }))
}

/// As what something is wanted.
#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FormWord {
    /// A plain file's bytes.
    File,
    /// A tar archive of a folder, or of one file or link.
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
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadQuery {
    /// A file or folder in the guest.
    path: String,
    /// As what.
    #[serde(default)]
    #[param(inline, required = false)]
    form: FormWord,
    /// Where to begin in a file; only with `form=file`.
    #[param(value_type = Option<u64>)]
    offset: Option<Natural>,
    /// How much of a file is wanted at most; only with `form=file`.
    #[param(value_type = Option<u64>)]
    length: Option<Natural>,
    /// Whether a link at the end of the path is followed; by default unless `form=archive`. One that
    /// is not comes as an archive of itself.
    follow: Option<bool>,
}

/// A file's bytes, or a folder as a tar archive, while they come. A header tells which, and the
/// attributes. A body that is not whole breaks off. For whoever says `TE: trailers` it ends in order
/// instead, with a trailer `Metaservice-Problem` that has to be looked for: the error as JSON.
#[utoipa::path(get, path = "/v1/read", params(ReadQuery), responses(
    (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
        headers(("Metaservice-File" = String, description = "form, size, mode and mtimeNs as JSON"))),
    (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
    (status = 501, body = Problem), (status = 502, body = Problem), (status = 503, body = Problem),
    (status = 504, body = Problem), (status = 507, body = Problem),
))]
pub(crate) async fn read(
    State(served): State<Served>,
    headers: HeaderMap,
    Query(query): Query<ReadQuery>,
) -> Response {
    let ReadQuery { path, form, offset, length, follow } = query;
    let ranged = offset.is_some() || length.is_some();
    if ranged && !matches!(form, FormWord::File) {
        return refuse(Code::InvalidRequest, "offset and length go with form=file");
    }
    let reading = if ranged {
        let number = |number: Option<Natural>| number.map(|Natural(number)| number);
        served.service.read_range(path, number(offset).unwrap_or(0), number(length)).await
    } else {
        match follow {
            Some(follow) => served.service.read_link(path, form.into(), follow).await,
            None => served.service.read(path, form.into()).await,
        }
    };
    match reading {
        Ok(reading) => {
            let trailers = takes_trailers(&headers);
            let headers = [
                (header::CONTENT_TYPE.as_str(), "application/octet-stream".to_owned()),
                (FILE_HEADER, reading.head().to_header()),
                (header::TRAILER.as_str(), PROBLEM_HEADER.to_owned()),
            ];
            (headers, reading_body(reading, trailers)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// Breaks off where the reading does, or ends with a trailer that says why.
fn reading_body(reading: Reading, trailers: bool) -> Body {
    let frames = stream::try_unfold(Some(reading), move |reading| async move {
        let Some(mut reading) = reading else { return Ok(None) };
        let error = match reading.chunk().await {
            Ok(chunk) => return Ok(chunk.map(|chunk| (Frame::data(chunk), Some(reading)))),
            Err(error) => error,
        };
        match Problem::from(&error).to_trailers().filter(|_| trailers) {
            Some(trailers) => Ok(Some((Frame::trailers(trailers), None))),
            None => Err(error),
        }
    });
    Body::new(StreamBody::new(frames))
}

/// Whether the caller reads what comes behind a body (RFC 9110, section 10.1.4).
fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("trailers"))
}

/// Where and how to write.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(crate) struct WriteQuery {
    /// The place in the guest.
    path: String,
    /// `file` or `archive`.
    #[param(inline)]
    form: FormWord,
    /// If `path` is a folder already: the name in it.
    name: Option<String>,
    /// A file's permission bits.
    #[param(maximum = 4095)]
    mode: Option<u32>,
    /// When the file was last modified, in nanoseconds since 1970.
    mtime_ns: Option<i64>,
    /// Whether set-user-id and set-group-id bits of an archive's members are kept.
    #[serde(default)]
    #[param(required = false)]
    set_id: bool,
}

/// Writes a file, or what a tar archive holds, into the guest.
#[utoipa::path(put, path = "/v1/write", params(WriteQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = Written),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 501, body = Problem), (status = 502, body = Problem), (status = 503, body = Problem),
        (status = 504, body = Problem), (status = 507, body = Problem),
    ))]
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
            // A caller that is still sending when the connection closes sees a broken pipe and no
            // answer: it is read until it has seen the answer and goes.
            tokio::spawn(
                async move { tokio::io::copy_buf(&mut source, &mut tokio::io::sink()).await },
            );
            error.into_response()
        }
    }
}
