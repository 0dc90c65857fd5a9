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
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        let mut block = vec![0; limit.map_or(BLOCK, |limit| limit.min(BLOCK))];
        let count = fill(&mut file, &mut block)?;
        block.truncate(count);
        Ok((file, Bytes::from(block)))
    });
    reading.await.unwrap_or_else(|_| Err(ErrorKind::Interrupted.into()))
}

fn fill(file: &mut File, block: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < block.len() {
        match file.read(&mut block[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}
