//! A file that is sent with the length that it had when the copy began.

use std::io;
use std::pin::Pin;
use std::task::{Context as Poller, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// A file with the length that it had when the copy began. Later bytes are not read, and a file
/// that has become shorter is an error. Files that the kernel generates have the length 0 and are
/// read to their end.
#[derive(Debug)]
pub(super) struct Whole<R> {
    source: R,
    left: Option<u64>,
}

impl<R> Whole<R> {
    pub(super) fn new(source: R, length: u64) -> Self {
        Self { source, left: (length > 0).then_some(length) }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Whole<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(left) = self.left else { return Pin::new(&mut self.source).poll_read(cx, buf) };
        if left == 0 || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.source).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        if count == 0 {
            let message = "the file has become shorter while it was read";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, message)));
        }
        buf.advance(count);
        self.left = Some(left - count as u64);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_file_is_as_long_as_it_was_or_an_error() {
        let read = async |content: &'static [u8], length| {
            let mut all = Vec::new();
            let read = Whole::new(content, length).read_to_end(&mut all).await;
            read.map(|_| all).map_err(|error| error.kind())
        };
        assert_eq!(read(b"some", 4).await.unwrap(), b"some");
        assert_eq!(read(b"some and more", 4).await.unwrap(), b"some");
        assert_eq!(read(b"some", 5).await.unwrap_err(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(b"made up", 0).await.unwrap(), b"made up");
    }
}
