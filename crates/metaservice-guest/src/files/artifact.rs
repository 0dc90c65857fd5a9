//! get-artifact: one file, byte by byte as it is.
//!
//! Owns what counts as a file that can be fetched: a regular file that can be opened, links
//! followed. Nothing else is ever opened, not even for a moment, because opening a
//! device or a FIFO can act on it or wait for ever: the path is first looked at without
//! being opened, and then that very file is.
//!
//! | file | arrives as |
//! | --- | --- |
//! | regular | exactly its size at the time it was opened, also when it grows meanwhile |
//! | regular, ends before its size | if it fits into the first block, what there was to read (files in `/sys` are so); else the connection is broken, never filled up |
//! | regular, of size 0 with content (`/proc`) | all that can be read, chunked |
//! | anything else, or nothing there | file-not-found |

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::Bytes;
use metaservice_protocol::ActionId;
use rustix::fs::{FileType, Mode, OFlags};

use crate::client::body::{Body, BodySender, RequestOver};
use crate::client::{Client, ClientError, ReplyBody};
use crate::files::blocks::{self, BLOCK, Pool};

/// Answers a get-artifact action. Dropping the future cuts the reply.
pub(crate) async fn serve(client: &Client, id: &ActionId, path: &Path) -> Result<(), ClientError> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || open(&path)).await;
    let Ok(Ok((file, size))) = opened else {
        return client.reply(id, ReplyBody::FileNotFound, Body::empty()).await;
    };
    let limit = Some(size).filter(|&size| size > 0);
    // A file that opens and cannot be read, as some of /proc, is as good as none.
    let pool = Pool::default();
    let Ok((file, first)) = blocks::read(&pool, file, limit).await else {
        return client.reply(id, ReplyBody::FileNotFound, Body::empty()).await;
    };
    if first.len() < BLOCK || first.len() as u64 == size {
        return client.reply(id, ReplyBody::Plain, Body::Whole(first)).await;
    }
    let (sender, body) = Body::stream(limit);
    let (sent, ()) = tokio::join!(client.reply(id, ReplyBody::Plain, body), async {
        // Whether it went wrong is told by the reply, which the sender breaks then.
        let _ = feed(&pool, sender, file, first, limit).await;
    });
    sent
}

/// Sends the rest of a file up to `limit`. Returns without an end, which breaks the reply,
/// when the file cannot be read as far.
async fn feed(
    pool: &Pool,
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

/// Opens a regular file; gives its size.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let status = rustix::fs::fstat(&place)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::NotFound.into());
    }
    // Without blocking: a few regular files of /proc have no end.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    let size = rustix::fs::fstat(&file)?.st_size;
    Ok((file, u64::try_from(size).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"abc").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let size = |path: &Path| open(path).ok().map(|(_, size)| size);
        assert_eq!(size(&file), Some(3));
        assert_eq!(size(&link), Some(3));
        assert_eq!(size(Path::new("/proc/version")), Some(0));
        for none in [fifo.as_path(), folder.path(), Path::new("/dev/zero"), Path::new("/none")] {
            assert_eq!(size(none), None, "{}", none.display());
        }
        assert_eq!(size(Path::new("")), None);
        assert_eq!(size(Path::new("a\0b")), None);
    }
}
