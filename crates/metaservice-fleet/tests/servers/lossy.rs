//! A connection to a server that loses a request.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Forwards connections to the server at this port, without the request for messages of this
/// number. Returns the address.
pub(crate) async fn lossy(server: u16, lost: u32) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            let (near_read, mut near_write) = near.into_split();
            let (mut far_read, far_write) = far.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut far_read, &mut near_write).await });
            tokio::spawn(forward(near_read, far_write, lost));
        }
    });
    format!("nats://{address}")
}

/// Forwards what a client sends: lines, each of which may have a payload.
async fn forward(from: OwnedReadHalf, mut to: OwnedWriteHalf, lost: u32) -> std::io::Result<()> {
    let (mut from, mut requests) = (BufReader::new(from), 0);
    loop {
        let mut frame = Vec::new();
        if from.read_until(b'\n', &mut frame).await? == 0 {
            return Ok(());
        }
        let line = String::from_utf8(frame.clone()).unwrap();
        if line.starts_with("PUB ") || line.starts_with("HPUB ") {
            let length: usize = line.split_whitespace().next_back().unwrap().parse().unwrap();
            let head = frame.len();
            frame.resize(head + length + b"\r\n".len(), 0);
            from.read_exact(&mut frame[head..]).await?;
        }
        requests += u32::from(line.contains("$JS.API.CONSUMER.MSG.NEXT."));
        if requests == lost && line.contains("$JS.API.CONSUMER.MSG.NEXT.") {
            continue;
        }
        to.write_all(&frame).await?;
    }
}
