//! Where the job's log goes: stdout, and a file where one was asked for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyhow::{Context as _, Result};
use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use crate::destination;
use crate::output::{self, AsyncOutput};
use crate::printer::Printer;
use crate::settings::JobSettings;

/// Opens what the settings ask for.
pub(crate) async fn open(
    settings: &JobSettings,
    printer: Printer,
) -> Result<Pin<Box<dyn AsyncWrite + Send>>> {
    let stdout = AsyncOutput::new();
    let Some(path) = &settings.log else {
        if output::may_be_closed() {
            let text = "standard output is closed or /dev/null: the log is shown nowhere";
            printer.note(&format!("{text} (--log FILE writes it to a file)"));
        }
        return Ok(Box::pin(stdout));
    };
    let (cannot, path) = (format!("cannot write --log {}", path.display()), path.clone());
    tracing::debug!(path = %path.display(), "opening the log's file");
    let file = tokio::task::spawn_blocking(move || destination::open_output(&path)).await?;
    let file = tokio::fs::File::from_std(file.context(cannot)?);
    Ok(Box::pin(Tee::<AsyncOutput, _> { first: stdout, second: file, owed: BytesMut::new() }))
}

/// Writes everything twice. What the first has taken is owed to the second, and paid
/// before the first is given more.
struct Tee<A, B> {
    first: A,
    second: B,
    owed: BytesMut,
}

impl<A: Unpin, B: AsyncWrite + Unpin> Tee<A, B> {
    fn poll_pay(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.owed.is_empty() {
            let Self { second, owed, .. } = self;
            match ready!(Pin::new(second).poll_write(cx, owed))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => owed.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<A: AsyncWrite + Unpin, B: AsyncWrite + Unpin> AsyncWrite for Tee<A, B> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pay(cx))?;
        let count = ready!(Pin::new(&mut self.first).poll_write(cx, buf))?;
        self.owed.extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pay(cx))?;
        ready!(Pin::new(&mut self.first).poll_flush(cx))?;
        Pin::new(&mut self.second).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pay(cx))?;
        ready!(Pin::new(&mut self.first).poll_shutdown(cx))?;
        Pin::new(&mut self.second).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn both_get_everything_at_their_own_pace() {
        let (first, mut from_first) = tokio::io::duplex(7);
        let (second, mut from_second) = tokio::io::duplex(3);
        let mut tee = Tee { first, second, owed: BytesMut::new() };
        let content: Vec<u8> = (0..=255).collect();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let writing = async {
            tee.write_all(&content).await.unwrap();
            tee.shutdown().await.unwrap();
            drop(tee);
        };
        let (_, a_read, b_read) =
            tokio::join!(writing, from_first.read_to_end(&mut a), from_second.read_to_end(&mut b));
        assert_eq!((a_read.unwrap(), b_read.unwrap()), (256, 256));
        assert_eq!((&a, &b), (&content, &content));
    }

    #[tokio::test]
    async fn a_second_that_fails_is_an_error() {
        let (second, reader) = tokio::io::duplex(3);
        drop(reader);
        let mut tee = Tee { first: tokio::io::sink(), second, owed: BytesMut::new() };
        tee.write_all(b"x").await.unwrap();
        assert!(tee.flush().await.is_err());
    }
}
