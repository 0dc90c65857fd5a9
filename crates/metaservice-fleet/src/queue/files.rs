//! The object store: artifacts.

use async_nats::jetstream::object_store::ObjectStore;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::connection::{FILES, Queue};
use super::error::{FetchError, ServerError};

impl Queue {
    async fn files(&self) -> Result<ObjectStore, ServerError> {
        self.context().get_object_store(FILES).await.map_err(Into::into)
    }

    /// Stores an object. It is not visible before it is whole.
    pub(crate) async fn store(
        &self,
        name: &str,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<u64, ServerError> {
        let stored = self.files().await?.put(name, from).await?;
        Ok(u64::try_from(stored.size)?)
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
        let mut object = store.get(object).await.map_err(|error| missing(error.into()))?;
        let mut buffer = vec![0; 128 * 1024];
        let mut length = 0;
        loop {
            match object.read(&mut buffer).await.map_err(FetchError::Read)? {
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
