//! Reading files in large blocks, on the runtime's blocking threads.
//!
//! Owns the hand-over to those threads and the memory of the blocks. Each block is one visit to a
//! thread, so that many slow files share few threads. Buffers are reused: in an emulated machine,
//! fresh memory costs about as much as the data that is read into it.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use metaservice_private::lock;

/// The size of a block in bytes.
pub(crate) const BLOCK: usize = 256 * 1024;

/// How many unused buffers are kept: about as many as can be in use at once.
const MAX_UNUSED: usize = 24;

/// Unused buffers of [`BLOCK`] bytes. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlockPool(Arc<Mutex<Vec<Vec<u8>>>>);

impl BlockPool {
    /// A buffer with arbitrary content.
    pub(crate) fn take(&self) -> Vec<u8> {
        let buffer = lock(&self.0).pop();
        buffer.unwrap_or_else(|| vec![0; BLOCK])
    }

    /// The first bytes of a buffer, which returns to the pool when they are dropped.
    pub(crate) fn lend(&self, buffer: Vec<u8>, length: usize) -> Bytes {
        Bytes::from_owner(LentBuffer { buffer, length, pool: self.clone() })
    }

    fn put(&self, buffer: Vec<u8>) {
        let mut pool = lock(&self.0);
        if pool.len() < MAX_UNUSED && buffer.len() == BLOCK {
            pool.push(buffer);
        }
    }

    /// [`read`] for a thread that may block.
    pub(crate) fn read(&self, file: &File, limit: Option<u64>) -> io::Result<Bytes> {
        let mut buffer = self.take();
        let limit = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(BLOCK).min(BLOCK);
        match fill(file, &mut buffer[..limit]) {
            Ok(length) => Ok(self.lend(buffer, length)),
            Err(error) => {
                self.put(buffer);
                Err(error)
            }
        }
    }
}

struct LentBuffer {
    buffer: Vec<u8>,
    length: usize,
    pool: BlockPool,
}

impl AsRef<[u8]> for LentBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for LentBuffer {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.buffer));
    }
}

/// Reads until the buffer is full or the file has no more data. Returns the number of bytes.
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

/// Reads the next block of a file, and at most `limit` bytes.
///
/// A block is shorter only at the end of the file. A file without an end, such as `/proc/kmsg`,
/// ends where it has no more data for now.
pub(crate) async fn read(
    pool: &BlockPool,
    file: File,
    limit: Option<u64>,
) -> io::Result<(File, Bytes)> {
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
    fn a_buffer_is_reused_once_its_block_is_dropped() {
        let pool = BlockPool::default();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; BLOCK + 3]).unwrap();
        file.rewind().unwrap();
        let first = pool.read(&file, None).unwrap();
        let second = pool.read(&file, Some(2)).unwrap();
        assert_eq!((first.len(), second.len()), (BLOCK, 2));
        let address = first.as_ptr();
        drop(first);
        let third = pool.read(&file, None).unwrap();
        assert_eq!((third.len(), third.as_ptr()), (1, address));
        assert_eq!(second, [7, 7][..]);
        assert!(pool.read(&file, None).unwrap().is_empty());
    }
}
