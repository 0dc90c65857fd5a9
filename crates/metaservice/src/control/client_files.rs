//! The client's calls on files and directories.

use bytes::Bytes;
use futures_util::{StreamExt, TryFutureExt};
use http::{Method, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use metaservice_protocol::{DirectoryEntry, FileHead, Form};
use tokio::io::AsyncRead;

use super::body::BodyReader;
use super::client::Client;
use super::connection::{broken, head, no_body, read_json, target};
use super::error::{ClientError, Code};
use super::model::{FILE_HEADER, Written};
use super::paths;
use crate::handle::lines::Lines;
use crate::handle::write::Destination;

/// The size of one read of a source.
const READ: usize = 256 * 1024;

/// A file or directory to be read; see [`Client::read`].
#[derive(Debug)]
#[must_use = "nothing is read before `open`"]
pub struct ReadRequest<'a> {
    client: &'a Client,
    path: String,
    form: Form,
    follow: Option<bool>,
    name: Option<String>,
}

/// A file or an archive that is being read.
#[derive(Debug)]
#[non_exhaustive]
pub struct FileBody {
    /// The attributes; `None` from an agent of version 1, which tells none.
    pub head: Option<FileHead>,
    /// The bytes.
    pub body: BodyReader,
}

/// A directory to be listed; see [`Client::list`].
#[derive(Debug)]
#[must_use = "nothing is listed before `entries` or `files`"]
pub struct ListRequest<'a> {
    client: &'a Client,
    path: String,
    recursive: bool,
}

impl Client {
    /// A file or directory of the guest, to be read, as
    /// [`MetaService::read`](crate::MetaService::read).
    pub fn read(&self, path: impl Into<String>) -> ReadRequest<'_> {
        ReadRequest { client: self, path: path.into(), form: Form::File, follow: None, name: None }
    }

    /// A directory of the guest, to be listed, as
    /// [`MetaService::list`](crate::MetaService::list).
    pub fn list(&self, path: impl Into<String>) -> ListRequest<'_> {
        ListRequest { client: self, path: path.into(), recursive: false }
    }

    /// Writes a file or an archive to the guest, as
    /// [`MetaService::write`](crate::MetaService::write).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn write<R>(&self, destination: Destination, source: R) -> Result<u64, ClientError>
    where
        R: AsyncRead + Send + 'static,
    {
        let Destination { path, name, form, mode, mtime_ns, set_id } = destination;
        let (mode, mtime) = (mode.map(|m| m.to_string()), mtime_ns.map(|m| m.to_string()));
        let mut query = vec![("path", path.as_str()), ("form", form_word(form))];
        query.extend(name.as_deref().map(|name| ("name", name)));
        query.extend(mode.as_deref().map(|mode| ("mode", mode)));
        query.extend(mtime.as_deref().map(|mtime| ("mtimeNs", mtime)));
        // An older version refuses a parameter that it does not know.
        query.extend(set_id.then_some(("setId", "true")));
        let chunks = tokio_util::io::ReaderStream::with_capacity(source, READ);
        let frames = chunks.map(|chunk: std::io::Result<Bytes>| chunk.map(Frame::data));
        let body = StreamBody::new(frames).boxed_unsync();
        let head = head(Method::PUT, &target(paths::WRITE, &query));
        let Written { length } = read_json(self.socket.send(head, body).await?).await?;
        Ok(length)
    }
}

impl ReadRequest<'_> {
    /// A file's bytes, or a directory as a tar archive, or whichever it is.
    pub fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// Whether a symbolic link at the end of the path is followed, as
    /// [`ReadRequest::follow`](crate::ReadRequest::follow).
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = Some(follow);
        self
    }

    /// The name of a directory in its archive, as
    /// [`ReadRequest::named`](crate::ReadRequest::named).
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Reads while the bytes arrive. An agent of version 1 can read a file only; its directories
    /// are an error, [`Code::Unsupported`].
    ///
    /// # Errors
    /// [`ClientError`]. Later errors are errors of the body.
    pub async fn open(self) -> Result<FileBody, ClientError> {
        match self.stream().await {
            Err(error) if error.code() == Some(Code::Unsupported) && self.form != Form::Archive => {
                match self.artifact().await {
                    Err(missing) if missing.is_not_found() && self.is_directory().await => {
                        Err(error)
                    }
                    outcome => outcome,
                }
            }
            outcome => outcome,
        }
    }

    async fn stream(&self) -> Result<FileBody, ClientError> {
        let follow = self.follow.map(|follow| follow.to_string());
        match self.stream_with(follow.as_deref(), self.name.as_deref()).await {
            // An older version does not know the parameters, follows links and uses `./`.
            Err(ClientError::Refused { code: Code::InvalidRequest, message })
                if follow.is_some() && message.contains("follow")
                    || self.name.is_some() && message.contains("name") =>
            {
                self.stream_with(None, None).await
            }
            outcome => outcome,
        }
    }

    async fn stream_with(
        &self,
        follow: Option<&str>,
        name: Option<&str>,
    ) -> Result<FileBody, ClientError> {
        let mut query = vec![("path", self.path.as_str()), ("form", form_word(self.form))];
        query.extend(follow.map(|follow| ("follow", follow)));
        query.extend(name.map(|name| ("name", name)));
        // An error within the body comes in a trailer.
        let request = head(Method::GET, &target(paths::READ, &query))
            .header(header::TE, "trailers")
            .header(header::CONNECTION, "TE");
        let response = self.client.socket.send(request, no_body()).await?;
        let head = response.headers().get(FILE_HEADER).and_then(|value| value.to_str().ok());
        let head = head.and_then(FileHead::from_header);
        let head = head.ok_or_else(|| broken("the job sent a file without its attributes"))?;
        let body = BodyReader::new(response.into_body(), self.client.socket.clone());
        Ok(FileBody { head: Some(head), body })
    }

    /// A file of an agent of version 1.
    async fn artifact(&self) -> Result<FileBody, ClientError> {
        let target = target(paths::ARTIFACT, &[("path", &self.path)]);
        let response = self.client.socket.request(Method::GET, &target).await?;
        let body = BodyReader::new(response.into_body(), self.client.socket.clone());
        Ok(FileBody { head: None, body })
    }

    /// Whether an agent of version 1 lists files below the path. It fails to read a directory
    /// without a reason, and of a plain file it lists the file itself.
    async fn is_directory(&self) -> bool {
        let files = self.client.list(&*self.path).files().unwrap_or_else(|_| Vec::new()).await;
        files.iter().any(|file| file != self.path.trim_end_matches('/'))
    }
}

impl ListRequest<'_> {
    /// Whether to list the entries of subdirectories too, at any depth.
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.recursive = recursive;
        self
    }

    /// The entries with their attributes. They come from the guest: treat the names as text.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn entries(self) -> Result<Lines<DirectoryEntry>, ClientError> {
        let recursive = self.recursive.to_string();
        let query = [("path", self.path.as_str()), ("recursive", &recursive)];
        self.client.lines(&target(paths::ENTRIES, &query)).await
    }

    /// The absolute paths of all plain files below the directory. They come from the guest: treat
    /// them as text.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn files(self) -> Result<Vec<String>, ClientError> {
        let target = target(paths::FILES, &[("path", &self.path)]);
        self.client.socket.fetch(Method::GET, &target).await
    }
}

const fn form_word(form: Form) -> &'static str {
    match form {
        Form::File => "file",
        Form::Archive => "archive",
        Form::Any => "any",
    }
}
