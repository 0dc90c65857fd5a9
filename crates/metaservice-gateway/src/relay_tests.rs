use metaservice_egress::{Attempt, Target, Transport};
use metaservice_testing::noise;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::join;

use super::*;
use crate::inspect::Inspection;

/// A pipe that is filled as a connection is. What does not fit yet waits.
struct Pipe {
    stream: DuplexStream,
    size: usize,
    waiting: Vec<u8>,
    /// It takes no more.
    gone: bool,
}

impl Pipe {
    fn new(stream: DuplexStream, size: usize) -> Self {
        Self { stream, size, waiting: Vec::new(), gone: false }
    }

    fn poll_pass(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let passed = ready!(Pin::new(&mut self.stream).poll_write(context, &self.waiting))?;
            self.waiting.drain(..passed);
        }
        Poll::Ready(Ok(()))
    }
}

impl Fill for Pipe {
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        fill: impl FnOnce(&mut Context<'_>, &mut [u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        if self.gone {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        ready!(self.poll_pass(context))?;
        self.waiting.resize(self.size, 0);
        let count = fill(context, &mut self.waiting);
        self.waiting.truncate(count);
        match self.poll_pass(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        unreachable!("it is filled")
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pass(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Runs a relay between two pipes of this size, with the two ends of it.
async fn relayed<T>(
    inspection: Inspection,
    size: usize,
    ends: impl AsyncFnOnce(DuplexStream, DuplexStream) -> T,
) -> (End, u64, u64, T) {
    let (guest, guest_end) = duplex(size);
    relayed_to(Pipe::new(guest, size), guest_end, inspection, ends).await
}

/// As [`relayed`], with this pipe to the guest.
async fn relayed_to<T>(
    mut guest: Pipe,
    guest_end: DuplexStream,
    inspection: Inspection,
    ends: impl AsyncFnOnce(DuplexStream, DuplexStream) -> T,
) -> (End, u64, u64, T) {
    let target = Target::Name("a.example".parse().unwrap());
    let attempt = Attempt { target, port: 80, transport: Transport::Tcp };
    let (mut peer, peer_end) = duplex(guest.size);
    let (mut sent, mut received) = (0, 0);
    let inspector = Inspector::new(inspection, &attempt);
    let copy = async {
        let end = relay(&mut guest, &mut peer, inspector, &mut sent, &mut received).await;
        drop((guest, peer));
        end
    };
    let (end, value) = join!(copy, ends(guest_end, peer_end));
    (end, sent, received, value)
}

#[tokio::test]
async fn both_directions_are_whole_and_counted() {
    let (there, back) = (noise(300_000, 1), noise(200_000, 2));
    let result = relayed(Inspection::None, 777, async |guest, peer| {
        let (mut guest_reads, mut guest_writes) = tokio::io::split(guest);
        let (mut peer_reads, mut peer_writes) = tokio::io::split(peer);
        let (mut at_guest, mut at_peer) = (Vec::new(), Vec::new());
        let results = join!(
            async {
                guest_writes.write_all(&there).await.unwrap();
                guest_writes.shutdown().await
            },
            async {
                peer_writes.write_all(&back).await.unwrap();
                peer_writes.shutdown().await
            },
            guest_reads.read_to_end(&mut at_guest),
            peer_reads.read_to_end(&mut at_peer),
        );
        results.0.unwrap();
        assert!(at_guest == back && at_peer == there);
    });
    let (end, sent, received, ()) = result.await;
    assert_eq!((end, sent, received), (End::Ended, 300_000, 200_000));
}

#[tokio::test]
async fn a_half_close_is_passed_on_and_the_other_direction_continues() {
    let result = relayed(Inspection::None, 64, async |mut guest, mut peer| {
        guest.write_all(b"request").await.unwrap();
        guest.shutdown().await.unwrap();
        let mut request = Vec::new();
        peer.read_to_end(&mut request).await.unwrap();
        peer.write_all(b"answer to ").await.unwrap();
        peer.write_all(&request).await.unwrap();
        drop(peer);
        let mut answer = String::new();
        guest.read_to_string(&mut answer).await.unwrap();
        answer
    });
    let (end, _, _, answer) = result.await;
    assert_eq!((end, answer.as_str()), (End::Ended, "answer to request"));
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_the_guest_back() {
    let result = relayed(Inspection::None, 1000, async |mut guest, peer| {
        let block = vec![7; 1 << 20];
        let mut taken = 0;
        // Everything that is ready happens before the clock of a paused runtime advances.
        while let Ok(Ok(count)) =
            tokio::time::timeout(std::time::Duration::from_secs(1), guest.write(&block)).await
        {
            taken += count;
        }
        drop((guest, peer));
        taken
    });
    tokio::time::pause();
    let (_, _, _, taken) = result.await;
    assert!((1000..200_000).contains(&taken), "{taken} bytes were taken");
}

#[tokio::test]
async fn a_guest_that_does_not_read_holds_the_peer_back() {
    let result = relayed(Inspection::None, 1000, async |guest, mut peer| {
        let block = vec![7; 1 << 20];
        let mut taken = 0;
        while let Ok(Ok(count)) =
            tokio::time::timeout(std::time::Duration::from_secs(1), peer.write(&block)).await
        {
            taken += count;
        }
        drop((guest, peer));
        taken
    });
    tokio::time::pause();
    let (_, _, _, taken) = result.await;
    assert!((1000..10_000).contains(&taken), "{taken} bytes were taken");
}

#[tokio::test]
async fn what_a_guest_has_sent_before_it_was_gone_still_arrives() {
    let (guest, guest_end) = duplex(1000);
    let gone = Pipe { gone: true, ..Pipe::new(guest, 1000) };
    let result = relayed_to(gone, guest_end, Inspection::None, async |mut guest, mut peer| {
        let mut read = Vec::new();
        let (wrote, read_all) = join!(
            async {
                guest.write_all(&[7; 5000]).await?;
                guest.shutdown().await
            },
            peer.read_to_end(&mut read)
        );
        wrote.and(read_all.map(drop)).unwrap();
        read.len()
    });
    let (end, sent, _, read) = result.await;
    assert_eq!((end, sent, read), (End::Reset, 5000, 5000));
}

#[tokio::test]
async fn a_peer_that_speaks_first_is_never_held_up() {
    let result = relayed(Inspection::Tls, 1000, async |mut guest, mut peer| {
        peer.write_all(b"banner").await.unwrap();
        let mut banner = [0; 6];
        guest.read_exact(&mut banner).await.unwrap();
        banner
    });
    let (_, _, received, banner) = result.await;
    assert_eq!((&banner, received), (b"banner", 6));
}

#[tokio::test]
async fn nothing_of_a_request_for_another_name_passes() {
    let result = relayed(Inspection::Http, 1000, async |mut guest, mut peer| {
        let first = b"GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\n";
        guest.write_all(first).await.unwrap();
        let mut seen = vec![0; first.len()];
        peer.read_exact(&mut seen).await.unwrap();
        guest.write_all(b"GET /2 HTTP/1.1\r\nHost: b.example\r\n\r\n").await.unwrap();
        let mut passed = Vec::new();
        peer.read_to_end(&mut passed).await.unwrap();
        passed
    });
    let (end, sent, _, passed) = result.await;
    assert_eq!((end, sent, passed.as_slice()), (End::WrongName, 36, &b""[..]));
}

#[tokio::test]
async fn an_unfinished_head_does_not_pass_when_the_guest_ends() {
    let result = relayed(Inspection::Http, 1000, async |mut guest, mut peer| {
        guest.write_all(b"GET / HTTP/1.1\r\nHost: b.exam").await.unwrap();
        guest.shutdown().await.unwrap();
        let mut passed = Vec::new();
        peer.read_to_end(&mut passed).await.unwrap();
        passed
    });
    let (end, sent, _, passed) = result.await;
    assert_eq!((end, sent, passed), (End::WrongName, 0, Vec::new()));
}

#[tokio::test]
async fn a_websocket_continues_after_the_peer_has_agreed() {
    let result = relayed(Inspection::Http, 1000, async |mut guest, mut peer| {
        let request = b"GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\r\n";
        guest.write_all(request).await.unwrap();
        let mut seen = vec![0; request.len()];
        peer.read_exact(&mut seen).await.unwrap();
        // The guest is held back until the peer answers.
        guest.write_all(b"frame").await.unwrap();
        peer.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await.unwrap();
        let mut frame = [0; 5];
        peer.read_exact(&mut frame).await.unwrap();
        frame
    });
    assert_eq!(&result.await.3, b"frame");
}

#[tokio::test]
async fn a_peer_that_ends_without_an_answer_to_an_upgrade_ends_the_connection() {
    let result = relayed(Inspection::Http, 1000, async |mut guest, peer| {
        let request = b"GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\r\n";
        guest.write_all(request).await.unwrap();
        drop(peer);
        let mut rest = Vec::new();
        guest.read_to_end(&mut rest).await.unwrap();
    });
    assert_eq!(result.await.0, End::Reset);
}
