//! Files read in large blocks, away from the thread that serves everyone.
//!
//! Owns the hand-over to the runtime's few blocking threads: a block is one visit there, so
//! many slow files share them and none holds one for long.

use std::fs::File;
use std::io::{self, ErrorKind, Read};

use bytes::Bytes;

/// The size of a block.
pub(crate) const BLOCK: usize = 256 * 1024;

/// Reads the next block of a file, or less if `limit` is less. It is shorter than that only
/// at the end of the file, or where a file without an end (`/proc/kmsg`) has no more for now,
/// which counts as one.
pub(crate) async fn read(mut file: File, limit: Option<u64>) -> io::Result<(File, Bytes)> {
    let reading = tokio::task::spawn_blocking(move || {
        let most = limit.unwrap_or(u64::MAX).min(BLOCK as u64);
        // Into memory that nobody clears first.
        let mut block = Vec::with_capacity(usize::try_from(most).unwrap_or(BLOCK));
        match file.by_ref().take(most).read_to_end(&mut block) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok((file, Bytes::from(block))),
        }
    });
    reading.await.unwrap_or_else(|_| Err(ErrorKind::Interrupted.into()))
}
