//! The object store: artifacts.
//!
//! The client library's own `put` does not say under which name the parts of an object are, so what
//! it stored of an upload that failed could not be found. The format is that of the library.

use std::collections::HashMap;
use std::time::SystemTime;

use async_nats::HeaderMap;
use async_nats::jetstream::object_store::{ObjectInfo, ObjectOptions, ObjectStore};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::connection::{FILES, OBJECTS, Queue};
use super::error::{FetchError, ServerError};
use super::keys::{content_subject, mark_subject};
use crate::name::RunId;

/// The length of a part, in bytes.
const PART: usize = 128 * 1024;

/// What a reader of objects sends requests to.
const READING: [&str; 4] = [
    "$JS.API.STREAM.INFO.OBJ_ms_files",
    "$JS.API.STREAM.MSG.GET.OBJ_ms_files",
    "$JS.API.DIRECT.GET.OBJ_ms_files.>",
    "$JS.API.CONSUMER.CREATE.OBJ_ms_files>",
];

impl Queue {
    async fn files(&self) -> Result<ObjectStore, ServerError> {
        let getting = self.context().get_object_store(FILES);
        self.denials().watch_all(&READING, getting).await?.map_err(Into::into)
    }

    /// Stores an object. It is not visible before it is whole. If it cannot be stored, its parts are
    /// removed, as far as a server answers.
    ///
    /// Cancellation: its parts stay, until [`remove_left_parts`](Self::remove_left_parts).
    pub(crate) async fn store(
        &self,
        name: &str,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<u64, ServerError> {
        let old = self.files().await?.info(name).await.ok().map(|info| info.nuid);
        let nuid = format!("{}{}", RunId::random(), RunId::random());
        let content = content_subject(&nuid);
        let size = match self.put(name, &nuid, from).await {
            Ok(size) => size,
            Err(error) => {
                if let Err(error) = self.remove(OBJECTS, content, None).await {
                    tracing::warn!(%error, name, "parts of a file are left in the queue");
                }
                return Err(error);
            }
        };
        if let Some(old) = old {
            self.remove(OBJECTS, content_subject(&old), None).await?;
        }
        Ok(size)
    }

    /// Stores the parts of an object, and then its mark.
    async fn put(
        &self,
        name: &str,
        nuid: &str,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<u64, ServerError> {
        let content = content_subject(nuid);
        let (mut size, mut chunks, mut hasher) = (0, 0, Sha256::new());
        let mut buffer = BytesMut::with_capacity(PART);
        while from.read_buf(&mut buffer).await? > 0 {
            let part = buffer.split().freeze();
            hasher.update(&part);
            size += part.len();
            chunks += 1;
            self.put_one(&content, HeaderMap::new(), part).await?;
            buffer.reserve(PART);
        }
        let info = ObjectInfo {
            name: name.to_owned(),
            description: None,
            metadata: HashMap::new(),
            headers: None,
            options: Some(ObjectOptions { link: None, max_chunk_size: Some(PART) }),
            bucket: FILES.to_owned(),
            nuid: nuid.to_owned(),
            size,
            chunks,
            modified: Some(SystemTime::now().into()),
            digest: Some(format!("SHA-256={}", URL_SAFE.encode(hasher.finalize()))),
            deleted: false,
        };
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_ROLLUP, "sub");
        self.put_one(&mark_subject(name), headers, serde_json::to_vec(&info)?.into()).await?;
        Ok(u64::try_from(size)?)
    }

    async fn put_one(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), ServerError> {
        let sending = async {
            let subject = subject.to_owned();
            self.context().publish_with_headers(subject, headers, payload).await?.await
        };
        self.denials().watch(subject, sending).await??;
        Ok(())
    }

    /// Reads an object, checks its digest, and returns its length in bytes.
    ///
    /// Cancellation: a part of it is written.
    ///
    /// # Errors
    /// When there is no such object, it is damaged, or it cannot be written.
    pub async fn fetch(
        &self,
        object: &str,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, FetchError> {
        let missing = |cause| FetchError::Missing { name: object.to_owned(), cause };
        let store = self.files().await.map_err(missing)?;
        let opened = self.denials().watch_all(&READING, store.get(object)).await?;
        let mut object = opened.map_err(|error| missing(error.into()))?;
        let mut buffer = vec![0; PART];
        let mut length = 0;
        loop {
            let reading = object.read(&mut buffer);
            let read = self.denials().watch_all(&READING, reading).await?;
            match read.map_err(FetchError::Read)? {
                0 => break,
                count => {
                    to.write_all(&buffer[..count]).await.map_err(FetchError::Write)?;
                    length += count as u64;
                }
            }
        }
        to.flush().await.map_err(FetchError::Write)?;
        Ok(length)
    }
}
