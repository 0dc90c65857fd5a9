//! The reading end of a command's output.
//!
//! Owns the question when an output has ended. That is when the command has, and the pipe is
//! empty; not when nobody holds the pipe any more: a stray descendant may hold it for ever, and
//! before the command has opened it nobody does.

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use tokio::sync::watch;

use crate::files::blocks::{BLOCK, Pool};
use crate::system::descriptor::Descriptor;

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
        let pool = Pool::default();
        Ok(Self { pipe: Descriptor::new(pipe)?, ended, buffer: pool.take(), pool })
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
