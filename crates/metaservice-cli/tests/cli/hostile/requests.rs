//! Hostile connections, heads, websocket frames and action ids.

use std::io::{Read, Write};
use std::time::Duration;

use metaservice_testing::cli::finish;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::timeout;

use super::{Attack, BUFFERED, flood};

/// How long each connection of an attack lasts at most.
const ATTACK: Duration = Duration::from_secs(20);

#[test]
fn a_head_without_an_end_is_cut() {
    let attack = Attack::new(&[]);
    for (begin, block) in [
        ("GET /", "a".repeat(64 * 1024)),
        ("GET / HTTP/1.1\r\n", "name: value\r\n".repeat(5000)),
        ("GET / HTTP/1.1\r\nname: ", "v".repeat(64 * 1024)),
        ("POST /engine/v1/log HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;", "x".repeat(65536)),
        ("", "\r\n".repeat(30_000)),
        ("\0\u{7f}", "\0".repeat(65536)),
    ] {
        let mut stream = attack.service.connect();
        stream.write_all(begin.as_bytes()).unwrap();
        let sent = flood(&stream, block.as_bytes());
        assert!(sent < BUFFERED, "{begin:?}: {sent} bytes are accepted");
    }
    attack.assert_harmless();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_with_half_a_head_are_closed() {
    let attack = Attack::new(&["--limit", "head-time=2s"]);
    let mut connections = JoinSet::new();
    for n in 0..10_000 {
        let address = attack.service.address.clone();
        connections.spawn(timeout(ATTACK, async move {
            // The kernel delays connections for which its queue has no room.
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            stream.write_all(b"GET /engine/v1/ping HTT").await?;
            if n % 2 == 1 {
                // Nearly as long as a head may be.
                stream.write_all(b"P/1.1\r\nname: ").await?;
                stream.write_all(&[b'v'; 15_000]).await?;
            }
            // The service may answer an error before it closes the connection.
            stream.read_to_end(&mut Vec::new()).await
        }));
    }
    let mut closed = 0;
    for ended in 0.. {
        let Some(connection) = connections.join_next().await else { break };
        closed += u32::from(connection.unwrap().is_ok());
        if ended % 500 == 0 {
            block_in_place(|| attack.other.assert_serving());
        }
    }
    assert!(closed > 1024, "only {closed} connections have ended");
    block_in_place(|| attack.assert_harmless());
}

#[test]
fn a_websocket_frame_with_an_invalid_head_is_cut() {
    for (what, frame) in [
        ("4 GiB", [0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0]),
        ("the largest length", [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("a long fragment", [0x02, 0xff, 0, 0, 0, 0, 0, 0, 0x40, 0]),
        ("reserved bits", [0xf2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("a reserved opcode", [0x83, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("a long ping", [0x89, 0xff, 0, 0, 0, 0, 0, 0, 1, 0]),
    ] {
        let attack = Attack::new(&[]);
        let client = attack.cli.command(["exec", "attacked", "cat"]).spawn().unwrap();
        let id = attack.service.poll("");
        let head = format!(
            "GET /engine/v1/reply?id={id} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let mut stream = attack.service.send(&head, b"");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");

        stream.write_all(&frame).unwrap();
        let sent = flood(&stream, &[0; 64 * 1024]);

        assert!(sent < BUFFERED, "{what}: {sent} bytes are accepted");
        assert_eq!(finish(client).status, Some(125), "{what}");
        attack.assert_harmless();
    }
}

const LISTING: &str = r#"{"files":["/f"],"notFound":false}"#;
const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn a_reply_with_a_forged_id_is_refused() {
    let attack = Attack::new(&[]);
    let client = attack.cli.command(["ls", "attacked", "/"]).spawn().unwrap();
    let id = attack.service.poll("");
    let neighbour = format!("{:032x}", u128::from_str_radix(&id, 16).unwrap() ^ 1);
    let long = "a".repeat(10_000);
    for forged in [&*neighbour, "", "0", "%00", "../poll", &long] {
        let path = format!("reply?id={forged}");
        let (status, body) = attack.service.request_with("POST", &path, JSON, LISTING);
        assert!(status.starts_with("HTTP/1.1 4"), "{forged}: {status}");
        assert!(body.contains("UnknownActionId"), "{forged}: {body}");
    }
    // The action is still there for the agent.
    attack.service.request_with("POST", &format!("reply?id={id}"), JSON, LISTING);
    assert_eq!(finish(client).text(0), "f\n");
    attack.assert_harmless();
}

#[test]
fn a_second_reply_to_an_action_is_refused() {
    let attack = Attack::new(&[]);
    let client = attack.cli.command(["ls", "attacked", "/"]).spawn().unwrap();
    let path = format!("reply?id={}", attack.service.poll(""));
    let (first, _) = attack.service.request_with("POST", &path, JSON, LISTING);
    let (second, body) = attack.service.request_with("POST", &path, JSON, LISTING);
    assert_eq!(first, "HTTP/1.1 200 OK");
    assert!(second.starts_with("HTTP/1.1 4"), "{second}");
    assert!(body.contains("UnknownActionId"), "{body}");
    finish(client).text(0);
    attack.assert_harmless();
}
