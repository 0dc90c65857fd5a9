//! Files read in large blocks, away from the thread that serves everyone.
//!
//! Owns the hand-over to the runtime's few blocking threads: a block is one visit there, so
//! many slow files share them and none holds one for long. And the memory of blocks: a buffer is
//! used again, because fresh memory costs an emulated machine about as much as what is read into it.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Mutex};

use metaservice_private::lock;

use bytes::Bytes;

/// The size of a block.
pub(crate) const BLOCK: usize = 256 * 1024;

/// How many buffers are kept for their next use: about as many as can be under way.
const POOLED: usize = 24;

/// Buffers of [`BLOCK`] bytes that were used. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    /// A buffer, with whatever was in it.
    pub(crate) fn take(&self) -> Vec<u8> {
        let buffer = lock(&self.0).pop();
        buffer.unwrap_or_else(|| vec![0; BLOCK])
    }

    /// A buffer's first bytes. It comes back when nobody needs them any longer.
    pub(crate) fn lend(&self, buffer: Vec<u8>, length: usize) -> Bytes {
        Bytes::from_owner(Pooled { buffer, length, pool: self.clone() })
    }

    /// A buffer that was not used after all.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        let mut pool = lock(&self.0);
        if pool.len() < POOLED && buffer.len() == BLOCK {
            pool.push(buffer);
        }
    }

    /// The next bytes of a file, as [`read`].
    pub(crate) fn read(&self, file: &File, limit: Option<u64>) -> io::Result<Bytes> {
        let mut buffer = self.take();
        let most = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(BLOCK).min(BLOCK);
        match fill(file, &mut buffer[..most]) {
            Ok(length) => Ok(self.lend(buffer, length)),
            Err(error) => {
                self.give_back(buffer);
                Err(error)
            }
        }
    }
}

struct Pooled {
    buffer: Vec<u8>,
    length: usize,
    pool: Pool,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.buffer));
    }
}

/// Reads until the buffer is full or there is no more, and says how much.
fn fill(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads the next block of a file, or less if `limit` is less. It is shorter than that only
/// at the end of the file, or where a file without an end (`/proc/kmsg`) has no more for now,
/// which counts as one.
pub(crate) async fn read(pool: &Pool, file: File, limit: Option<u64>) -> io::Result<(File, Bytes)> {
    let pool = pool.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let block = pool.read(&file, limit)?;
        Ok((file, block))
    });
    reading.await.unwrap_or_else(|_| Err(ErrorKind::Interrupted.into()))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_nobody_needs_it() {
        let pool = Pool::default();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; BLOCK + 3]).unwrap();
        file.rewind().unwrap();
        let first = pool.read(&file, None).unwrap();
        let second = pool.read(&file, Some(2)).unwrap();
        assert_eq!((first.len(), second.len()), (BLOCK, 2));
        let place = first.as_ptr();
        drop(first);
        let third = pool.read(&file, None).unwrap();
        assert_eq!((third.len(), third.as_ptr()), (1, place));
        assert_eq!(second, [7, 7][..]);
        assert!(pool.read(&file, None).unwrap().is_empty());
    }
}
