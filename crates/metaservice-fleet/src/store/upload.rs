//! Puts an object into a store: a small one at once, a large one in parts.

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::error::PutError;

/// The length of a part, in bytes. Stores take at most 10,000 parts, so an object has at most
/// 100 GB.
const PART: usize = 10 << 20;

/// How many parts are sent at once.
const CONCURRENT: usize = 4;

/// Stores all that the reader has, and returns its length in bytes.
///
/// Cancellation: the object is not visible. Parts that a bucket has already stay there, until the
/// bucket's own rule removes them.
pub(super) async fn upload(
    objects: &dyn ObjectStore,
    place: &Path,
    from: &mut (impl AsyncRead + Unpin),
) -> Result<u64, PutError> {
    let first = part(from).await?;
    let length = first.len() as u64;
    if first.len() < PART {
        objects.put(place, first.into()).await.map_err(PutError::Store)?;
        return Ok(length);
    }
    let upload = objects.put_multipart(place).await.map_err(PutError::Store)?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
    upload.put(first.into());
    match send(&mut upload, from).await {
        // It removes the parts if it fails.
        Ok(rest) => upload.finish().await.map(|_| length + rest).map_err(PutError::Store),
        Err(error) => {
            // The parts that the store has already cost money.
            let _ = upload.abort().await;
            Err(error)
        }
    }
}

/// Sends the rest of the parts, and returns their length in bytes.
async fn send(
    upload: &mut WriteMultipart,
    from: &mut (impl AsyncRead + Unpin),
) -> Result<u64, PutError> {
    let mut length = 0;
    loop {
        upload.wait_for_capacity(CONCURRENT).await.map_err(PutError::Store)?;
        let next = part(from).await?;
        if next.is_empty() {
            return Ok(length);
        }
        length += next.len() as u64;
        upload.put(next.into());
    }
}

/// The next part. Shorter than [`PART`]: the last one.
async fn part(from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, PutError> {
    let mut part = Vec::new();
    from.take(PART as u64).read_to_end(&mut part).await.map_err(PutError::Read)?;
    Ok(part)
}
