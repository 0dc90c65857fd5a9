//! The reading end of a command's output.
//!
//! Owns the question when an output has ended. That is when the command has, and the pipe is
//! empty; not when nobody holds the pipe any more: a stray descendant may hold it for ever, and
//! before the command has opened it nobody does.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::descriptor::Descriptor;
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use tokio::sync::watch;

/// The most that one read takes.
const CHUNK: usize = 256 * 1024;

/// How many buffers are kept for their next use: about as many as can be under way.
const POOLED: usize = 24;

/// How much the kernel holds for a command while its agent is busy or away: the most that it
/// grants without privileges.
const PIPE: usize = 1024 * 1024;

/// The reading end of a command's output.
#[derive(Debug)]
pub(crate) struct Output {
    pipe: Descriptor,
    ended: watch::Receiver<bool>,
    buffer: Vec<u8>,
    pool: Pool,
}

/// Buffers that were used: memory that the kernel has already given costs much less than fresh
/// one, in an emulated machine above all.
#[derive(Debug, Clone, Default)]
struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }
}

/// A buffer that goes back when nobody needs its bytes any longer.
struct Pooled {
    buffer: Vec<u8>,
    pool: Pool,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut pool = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < POOLED {
            pool.push(std::mem::take(&mut self.buffer));
        }
    }
}

impl Output {
    /// A pipe for a command's output: the end for [`new`](Self::new), and the command's.
    pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        Ok((reader, writer))
    }

    /// `ended` becomes true when the command has ended. Its `pipe` is kept open for writing, so that
    /// it never reports an end of its own.
    pub(crate) fn new(pipe: OwnedFd, ended: watch::Receiver<bool>) -> io::Result<Self> {
        // A smaller pipe is slower, not wrong.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE);
        Ok(Self { pipe: Descriptor::new(pipe)?, ended, buffer: Vec::new(), pool: Pool::default() })
    }

    /// The next bytes; `None` at the end. Nothing is lost when this future is dropped.
    pub(crate) async fn read(&mut self) -> Option<Bytes> {
        loop {
            // The order matters: what was written before the end is in the pipe by now.
            let ended = *self.ended.borrow_and_update();
            match self.read_now() {
                Ok(chunk) => return Some(chunk),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) if !ended => {}
                Err(_) => return None,
            }
            tokio::select! {
                ready = self.pipe.readable() => match ready {
                    Ok(mut ready) => {
                        // Only if it is still empty: the edge that was missed would not come back.
                        let empty = ready.try_io(|pipe| match rustix::io::ioctl_fionread(pipe) {
                            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
                            _ => Ok(()),
                        });
                        drop(empty);
                    }
                    Err(_) => return None,
                },
                changed = self.ended.changed() => if changed.is_err() {
                    return None;
                },
            }
        }
    }

    fn read_now(&mut self) -> Result<Bytes, Errno> {
        self.buffer.clear();
        self.buffer.reserve_exact(CHUNK);
        let count = rustix::io::read(&self.pipe, spare_capacity(&mut self.buffer))?;
        if count == 0 {
            return Err(Errno::AGAIN);
        }
        if count < CHUNK / 4 {
            return Ok(Bytes::copy_from_slice(&self.buffer));
        }
        let buffer = std::mem::replace(&mut self.buffer, self.pool.take());
        Ok(Bytes::from_owner(Pooled { buffer, pool: self.pool.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_output_ends_with_its_command_and_not_before_it_is_empty() {
        let (reader, writer) = Output::pipe().unwrap();
        let (end, ended) = watch::channel(false);
        let mut output = Output::new(reader, ended).unwrap();
        let read = tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(chunk) = output.read().await {
                all.extend(chunk);
            }
            all
        });
        tokio::task::yield_now().await;
        rustix::io::write(&writer, b"one ").unwrap();
        tokio::task::yield_now().await;
        rustix::io::write(&writer, b"two").unwrap();
        end.send_replace(true);
        // The writer is still open: a stray descendant does not keep the log open.
        assert_eq!(read.await.unwrap(), b"one two");
        drop(writer);
    }
}
