//! get-artifact: one file, byte by byte.
//!
//! Owns the decision which files can be fetched: regular files that can be opened, links followed.
//! Nothing else is opened, because opening a device or a FIFO can change it or block. So the path
//! is opened as a place (`O_PATH`) and looked at, and then that very file is opened.
//!
//! | file | the reply |
//! | --- | --- |
//! | regular | exactly its size at the time when it was opened, even if it grows |
//! | regular, ends before its size in the first block (`/sys`) | the bytes that were read |
//! | regular, ends before its size later | the connection breaks |
//! | regular, of size 0 with content (`/proc`) | everything that can be read, chunked |
//! | anything else, or nothing | file not found |

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;
use metaservice_protocol::ActionId;
use rustix::fs::{FileType, Mode, OFlags};

use super::status::open_place;
use crate::client::body::{Body, BodySender, RequestOver};
use crate::client::error::ClientError;
use crate::client::{Client, ReplyBody};
use crate::system::blocks::{self, BLOCK, BlockPool};

/// Serves a get-artifact action. Dropping the future cuts the reply.
pub(crate) async fn serve(client: &Client, id: &ActionId, path: &Path) -> Result<(), ClientError> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || open(&path)).await;
    let Ok(Ok((file, size))) = opened else {
        return client.reply(id, ReplyBody::FileNotFound, Body::empty()).await;
    };
    let limit = Some(size).filter(|&size| size > 0);
    // Some files of /proc open and cannot be read.
    let pool = BlockPool::default();
    let Ok((file, first)) = blocks::read(&pool, file, limit).await else {
        return client.reply(id, ReplyBody::FileNotFound, Body::empty()).await;
    };
    if first.len() < BLOCK || first.len() as u64 == size {
        return client.reply(id, ReplyBody::Plain, Body::Whole(first)).await;
    }
    let (sender, body) = Body::stream(limit);
    let (sent, ()) = tokio::join!(client.reply(id, ReplyBody::Plain, body), async {
        // A failure drops the sender, and the reply breaks.
        let _ = feed(&pool, sender, file, first, limit).await;
    });
    sent
}

/// Sends the rest of a file up to `limit`. If the file cannot be read that far, it returns without
/// ending the body, which breaks the reply.
async fn feed(
    pool: &BlockPool,
    sender: BodySender,
    mut file: File,
    first: Bytes,
    limit: Option<u64>,
) -> Result<(), RequestOver> {
    let mut left = limit.map(|limit| limit - first.len() as u64);
    sender.send(first).await?;
    while left != Some(0) {
        let Ok((back, block)) = blocks::read(pool, file, left).await else { return Ok(()) };
        file = back;
        if block.is_empty() {
            break;
        }
        left = left.map(|left| left - block.len() as u64);
        sender.send(block).await?;
    }
    if left.is_some_and(|left| left > 0) {
        return Ok(());
    }
    sender.end().await
}

/// Opens a regular file, and returns its size.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let status = rustix::fs::fstat(&place)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = open_place(&place)?;
    let size = rustix::fs::fstat(&file)?.st_size;
    Ok((file, u64::try_from(size).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, b"abc").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let size = |path: &Path| open(path).ok().map(|(_, size)| size);
        assert_eq!(size(&file), Some(3));
        assert_eq!(size(&link), Some(3));
        assert_eq!(size(Path::new("/proc/version")), Some(0));
        for none in [fifo.as_path(), directory.path(), Path::new("/dev/zero"), Path::new("/none")] {
            assert_eq!(size(none), None, "{}", none.display());
        }
        assert_eq!(size(Path::new("")), None);
        assert_eq!(size(Path::new("a\0b")), None);
    }
}
