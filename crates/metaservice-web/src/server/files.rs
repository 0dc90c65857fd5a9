//! The files of a job's machine: what a directory has, what a file has, and both as downloads.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http::header;
use metaservice_protocol::{DirectoryEntry, EntryKind, Form};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::app::App;
use super::find::{Asked, running};
use super::responses::{Code, Refused, refuse, whole};
use crate::look::{Look, MAX_PICTURE, MAX_TEXT, picture};
use crate::source::Reached;

/// The most entries of a directory.
const MAX_ENTRIES: usize = 10_000;

/// The longest path, in bytes.
const MAX_PATH: usize = 4096;

/// The longest target of a link that is shown, in bytes.
const MAX_TARGET: usize = 1024;

/// How long a file may take to show its beginning: a device may never have a byte.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

/// A path in the machine of a job.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    started: u64,
    path: String,
}

/// A download.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Download {
    started: u64,
    path: String,
    /// As what: `tar`, or else a file.
    #[serde(rename = "as")]
    form: Option<DownloadForm>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DownloadForm {
    Tar,
}

/// What a directory has.
#[derive(Serialize)]
pub(super) struct Directory {
    path: String,
    entries: Vec<Entry>,
    /// Whether there are more.
    more: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: String,
    kind: &'static str,
    size: u64,
    mode: u32,
    modified_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

impl From<DirectoryEntry> for Entry {
    fn from(entry: DirectoryEntry) -> Self {
        let kind = match entry.kind {
            EntryKind::File => "file",
            EntryKind::Directory => "directory",
            EntryKind::Link => "link",
            _ => "other",
        };
        let DirectoryEntry { path: name, size, mode, mtime_ns, mut target, .. } = entry;
        if let Some(target) = &mut target {
            target.truncate(target.floor_char_boundary(MAX_TARGET));
        }
        Self { name, kind, size, mode, modified_ms: mtime_ns / 1_000_000, target }
    }
}

/// Lists a directory.
pub(super) async fn list(
    State(app): State<App>,
    Path(name): Path<String>,
    place: Asked<Place>,
) -> Result<Json<Directory>, Refused> {
    let Query(Place { started, path }) = place?;
    check(&path)?;
    let client = running(&app, &name, started).await?;
    let mut listed = client.list(&*path).entries().await?;
    let (mut entries, mut more) = (Vec::new(), false);
    while let Some(entry) = listed.next().await {
        let entry = entry.map_err(|error| refuse(Code::Failed, whole(&error)))?;
        if entries.len() == MAX_ENTRIES {
            more = true;
            break;
        }
        entries.push(Entry::from(entry));
    }
    Ok(Json(Directory { path, entries, more }))
}

/// What a file has, for a page that shows it.
pub(super) async fn look(
    State(app): State<App>,
    Path(name): Path<String>,
    place: Asked<Place>,
) -> Result<Json<Look>, Refused> {
    let Query(Place { started, path }) = place?;
    check(&path)?;
    let client = running(&app, &name, started).await?;
    let (size, begin) = begin(&client, &path, MAX_TEXT).await?;
    Ok(Json(Look::at(begin, size)))
}

/// A picture. Its type is that of its bytes, whatever its name is.
pub(super) async fn show(
    State(app): State<App>,
    Path(name): Path<String>,
    place: Asked<Place>,
) -> Result<Response, Refused> {
    let Query(Place { started, path }) = place?;
    check(&path)?;
    let client = running(&app, &name, started).await?;
    let (_, bytes) = begin(&client, &path, MAX_PICTURE + 1).await?;
    if bytes.len() > MAX_PICTURE {
        return Err(refuse(Code::Refused, "the picture is too large to be shown: download it"));
    }
    match picture(&bytes) {
        Some(kind) => Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response()),
        None => Err(refuse(Code::Refused, "the file is no picture")),
    }
}

/// A file, or a directory as an archive.
pub(super) async fn download(
    State(app): State<App>,
    Path(name): Path<String>,
    asked: Asked<Download>,
) -> Result<Response, Refused> {
    let Query(Download { started, path, form }) = asked?;
    check(&path)?;
    let client = running(&app, &name, started).await?;
    let form = if form.is_some() { Form::Archive } else { Form::File };
    let file = client.read(&*path).form(form).open().await?;
    let extension = if form == Form::Archive { ".tar" } else { "" };
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let base = if plain(last).is_empty() { plain(&name) } else { plain(last) };
    Ok(attachment(&format!("{base}{extension}"), Body::from_stream(file.body)))
}

/// A response that a browser saves, and does not show.
pub(super) fn attachment(name: &str, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", plain(name))),
    ];
    (headers, body).into_response()
}

/// A name that can be the name of a file.
pub(super) fn plain(name: &str) -> String {
    let is_plain = |char: &char| char.is_ascii_alphanumeric() || "-_.+".contains(*char);
    let name: String = name.chars().filter(is_plain).take(100).collect();
    name.trim_start_matches('.').to_owned()
}

/// The size of a file, if the guest says it, and its first bytes.
async fn begin(client: &Reached, path: &str, most: usize) -> Result<(u64, Vec<u8>), Refused> {
    let file = client.read(path).open().await?;
    let told = file.head.and_then(|head| head.size);
    let mut bytes = Vec::new();
    let mut body = AsyncReadExt::take(file.body, most as u64);
    match timeout(LOOK_TIMEOUT, body.read_to_end(&mut bytes)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(refuse(Code::Failed, whole(&error))),
        // The bytes so far.
        Err(_) if !bytes.is_empty() => {}
        Err(_) => return Err(refuse(Code::Failed, "the file has no byte yet")),
    }
    Ok((told.unwrap_or(bytes.len() as u64), bytes))
}

pub(super) fn check(path: &str) -> Result<(), Refused> {
    if !path.starts_with('/') || path.contains('\0') || path.len() > MAX_PATH {
        return Err(refuse(Code::Invalid, "a path begins with / and has at most 4096 bytes"));
    }
    Ok(())
}
