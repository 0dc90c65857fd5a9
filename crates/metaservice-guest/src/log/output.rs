//! The reading end of a job's output.
//!
//! Owns the decision when an output has ended: when the command has ended and the pipe is empty.
//! The end of the pipe itself would be wrong. A descendant of the command may hold the pipe for
//! ever, and before the command has opened it there is no writer at all.

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use tokio::sync::watch;

use crate::system::blocks::{BLOCK, BlockPool};
use crate::system::descriptor::Descriptor;

/// The size of the pipe in bytes: the most that Linux grants without privileges. It buffers the
/// output while the supervisor waits for the service.
const PIPE_SIZE: usize = 1024 * 1024;

/// The reading end of a job's output.
#[derive(Debug)]
pub(crate) struct Output {
    pipe: Descriptor,
    ended: watch::Receiver<bool>,
    buffer: Vec<u8>,
    pool: BlockPool,
}

impl Output {
    /// Creates a pipe: the end for [`new`](Self::new), and the command's end.
    pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        Ok((reader, writer))
    }

    /// `ended` becomes true when the command has ended. The caller keeps the writing end open, so
    /// that the pipe never reports an end of its own.
    pub(crate) fn new(pipe: OwnedFd, ended: watch::Receiver<bool>) -> io::Result<Self> {
        // A smaller pipe is slower, but works.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_SIZE);
        let pool = BlockPool::default();
        Ok(Self { pipe: Descriptor::new(pipe)?, ended, buffer: pool.take(), pool })
    }

    /// The next bytes; `None` at the end. Cancel-safe.
    pub(crate) async fn read(&mut self) -> Option<Bytes> {
        loop {
            // First `ended`, then the pipe: what was written before the end is in the pipe now.
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
                        // Readiness is edge-triggered: it is cleared only if the pipe is empty.
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
        let count = rustix::io::read(&self.pipe, &mut self.buffer)?;
        if count == 0 {
            return Err(Errno::AGAIN);
        }
        if count < BLOCK / 4 {
            return Ok(Bytes::copy_from_slice(&self.buffer[..count]));
        }
        let buffer = std::mem::replace(&mut self.buffer, self.pool.take());
        Ok(self.pool.lend(buffer, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_output_ends_with_its_command_once_it_is_empty() {
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
        // The writer is still open, as in a descendant that runs on.
        assert_eq!(read.await.unwrap(), b"one two");
        drop(writer);
    }
}
