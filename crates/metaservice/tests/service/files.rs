//! Files and lists of the extended protocol. The guest sends each byte by hand, also wrong ones.

use futures_util::{SinkExt, StreamExt, TryStreamExt};
use metaservice::{
    ActionError, Destination, FailureCode, MetaService, ReadError, Reading, WriteError,
};
use metaservice_protocol::transfer::Encoder;
use metaservice_testing::guest::{AGENT, Socket, head, next, reply_to};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::{guest, start};

const FILE: (&str, &str) =
    ("Metaservice-File", r#"{"form":"file","size":9,"mode":420,"mtimeNs":1700000000123456789}"#);

/// Begins to read a file and takes the action as an agent that can.
async fn reading(
    service: &MetaService,
) -> (tokio::task::JoinHandle<Result<Reading, ReadError>>, String) {
    let reading = start(service, async |s: MetaService| s.read("/f").open().await);
    let action = guest(service).poll_as_agent().await;
    assert_eq!((&action["type"], &action["path"]), (&"read".into(), &"/f".into()));
    (reading, reply_to(&action))
}

#[tokio::test]
async fn a_file_comes_with_its_attributes_and_its_digest_checked() {
    let service = crate::service();
    let (reading, target) = reading(&service).await;
    let mut encoder = Encoder::new();
    let parts = encoder.data(bytes::Bytes::from_static(b"some text"));
    let body = [&parts.concat()[..], &encoder.end()].concat();
    let sending = tokio::spawn({
        let service = service.clone();
        async move { guest(&service).request("POST", &target, &[FILE], &body).await }
    });
    let mut reading = reading.await.unwrap().unwrap();
    assert_eq!(reading.head().unwrap().mode, 0o644);
    assert_eq!(reading.head().unwrap().mtime_ns, 1_700_000_000_123_456_789);
    let mut read = Vec::new();
    reading.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"some text");
    assert_eq!(sending.await.unwrap().status, 200, "the guest hears that all of it came");
}

#[tokio::test]
async fn a_cut_file_goes_on_behind_its_last_byte() {
    let service = crate::service();
    let (reading, target) = reading(&service).await;
    let mut encoder = Encoder::new();
    let first = encoder.data(bytes::Bytes::from_static(b"some ")).concat();
    let mut stream = guest(&service).dial();
    let long = [FILE, ("Content-Length", "1000")];
    stream.write_all(&[&head("POST", &target, &long)[..], &first].concat()).await.unwrap();
    let mut reading = reading.await.unwrap().unwrap();
    let mut read = [0; 5];
    reading.read_exact(&mut read).await.unwrap();
    drop(stream);
    let action = guest(&service).poll_as_agent().await;
    assert_eq!(action["options"]["resume"]["skip"], 5);
    assert_eq!(action["options"]["resume"]["cursor"], "");
    // The digest is of a transfer's own content: a resumed one begins anew.
    let mut encoder = Encoder::new();
    let parts = encoder.data(bytes::Bytes::from_static(b"text")).concat();
    let body = [&parts[..], &encoder.end()].concat();
    assert_eq!(
        guest(&service).request("POST", &reply_to(&action), &[FILE], &body).await.status,
        200
    );
    let mut rest = Vec::new();
    reading.read_to_end(&mut rest).await.unwrap();
    assert_eq!([&read[..], &rest].concat(), b"some text");
}

#[tokio::test]
async fn six_cuts_without_a_byte_are_the_end_of_a_file() {
    let service = crate::service();
    let (reading, target) = reading(&service).await;
    let long = [FILE, ("Content-Length", "1000")];
    let mut target = target;
    for attempt in 1..=6 {
        let mut stream = guest(&service).dial();
        stream.write_all(&head("POST", &target, &long)).await.unwrap();
        drop(stream);
        if attempt < 6 {
            target = reply_to(&guest(&service).poll_as_agent().await);
        }
    }
    let mut reading = reading.await.unwrap().unwrap();
    let error = reading.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
}

#[tokio::test]
async fn a_transfer_that_lies_is_refused() {
    let mut wrong = Encoder::new();
    let mut damaged = wrong.data(bytes::Bytes::from_static(b"some text")).concat();
    *damaged.last_mut().unwrap() ^= 1;
    damaged.extend(wrong.end());
    let mut short = Encoder::new();
    let mut shorter = short.data(bytes::Bytes::from_static(b"some")).concat();
    shorter.extend(short.end());
    let bodies: [(&str, &[u8]); 6] = [
        ("another digest", &damaged),
        ("fewer bytes than announced", &shorter),
        ("a block of 512 MiB", &[0x1f, 0xff, 0xff, 0xff]),
        ("compressed, of 4 GiB content", &[0x20, 0, 0, 8, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]),
        ("an unknown kind", &[0xe0, 0, 0, 1, 7]),
        ("an end of no length", &[0x60, 0, 0, 0]),
    ];
    for (what, body) in bodies {
        let service = crate::service();
        let (reading, target) = reading(&service).await;
        let sending = tokio::spawn({
            let (service, body) = (service.clone(), body.to_vec());
            async move { guest(&service).request("POST", &target, &[FILE], &body).await }
        });
        let mut reading = reading.await.unwrap().unwrap();
        let mut read = Vec::new();
        let error = reading.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{what}: {error}");
        assert_eq!(sending.await.unwrap().error(), (500, "InternalError".to_owned()), "{what}");
    }
}

#[tokio::test]
async fn a_file_without_a_head_is_refused_and_stays_pending() {
    let service = crate::service();
    let (reading, target) = reading(&service).await;
    let refusal = guest(&service).post(&target, b"").await.error();
    assert_eq!(refusal, (400, "InvalidPayload".to_owned()));
    let none = [("Metaservice-Failure", r#"{"code":"not-found","message":"no\u001b[2J\nfile"}"#)];
    assert_eq!(guest(&service).request("POST", &target, &none, b"").await.status, 200);
    let Err(ReadError::NotFound(failure)) = reading.await.unwrap() else { panic!() };
    assert_eq!(failure.code, FailureCode::NotFound);
    assert!(!failure.message.chars().any(char::is_control), "{:?}", failure.message);
}

#[tokio::test]
async fn a_line_without_an_end_has_one() {
    let service = crate::service();
    let listing = start(&service, async |s: MetaService| s.list("/d").entries().await);
    let target = reply_to(&guest(&service).poll_as_agent().await);
    let mut stream = guest(&service).dial();
    let endless = [("Transfer-Encoding", "chunked")];
    stream.write_all(&head("POST", &target, &endless)).await.unwrap();
    let writing = tokio::spawn(async move {
        let chunk = [b"1000\r\n".to_vec(), vec![b'x'; 4096], b"\r\n".to_vec()].concat();
        // Written until the host has had enough.
        while stream.write_all(&chunk).await.is_ok() {}
    });
    let mut lines = listing.await.unwrap().unwrap();
    assert!(matches!(lines.try_next().await, Err(ActionError::Invalid(_))));
    assert!(matches!(lines.try_next().await, Ok(None)));
    drop(lines);
    writing.await.unwrap();
}

#[tokio::test]
async fn a_list_that_is_cut_or_ends_in_a_failure_is_not_whole() {
    let line =
        r#"{"path":"a","kind":"file","size":1,"mode":420,"mtimeNs":0,"uid":0,"gid":0,"links":1}"#;
    let failed = r#"{"failure":{"code":"permission-denied","message":"/d/b: no"}}"#;
    for (what, rest, whole) in
        [("cut", "{\"path", false), ("failed", failed, false), ("whole", "", true)]
    {
        let service = crate::service();
        let listing =
            start(&service, async |s: MetaService| s.list("/d").recursive(true).entries().await);
        let target = reply_to(&guest(&service).poll_as_agent().await);
        let end = if what == "failed" { "\n" } else { "" };
        let body = format!("{line}\n{rest}{end}");
        let sending = tokio::spawn({
            let service = service.clone();
            async move { guest(&service).post(&target, body.as_bytes()).await.status }
        });
        let mut lines = listing.await.unwrap().unwrap();
        assert_eq!(lines.try_next().await.unwrap().unwrap().path, "a");
        match lines.try_next().await {
            Ok(None) => assert!(whole, "{what}"),
            Err(ActionError::Failed(failure)) => {
                assert_eq!((what, failure.message.as_str()), ("failed", "/d/b: no"));
            }
            other => assert!(what == "cut", "{what}: {other:?}"),
        }
        assert_eq!(sending.await.unwrap(), if whole { 200 } else { 500 }, "{what}");
    }
}

/// Begins to write a file; returns the guest's end of the stream.
async fn writing(
    service: &MetaService,
    first: &str,
) -> (tokio::task::JoinHandle<Result<u64, WriteError>>, Socket) {
    let writing = start(service, async |s: MetaService| {
        s.write(Destination::file("/f"), &b"content"[..]).await
    });
    let action = guest(service).poll_as_agent().await;
    assert_eq!(action["type"], "write");
    let mut socket = guest(service).dial_shell_v2(&action).await;
    socket.send(Message::binary([b"\0\x01", first.as_bytes()].concat())).await.unwrap();
    (writing, socket)
}

#[tokio::test]
async fn a_guest_cannot_ask_for_what_was_never_sent() {
    for first in ["{\"from\":1}\n", "{\"from\":18446744073709551615}\n", "{}\n", &"x".repeat(300)] {
        let service = crate::service();
        let (writing, _socket) = writing(&service, first).await;
        let error = writing.await.unwrap().unwrap_err();
        assert!(
            matches!(error, WriteError::Action(ActionError::Invalid(_))),
            "{first:.20}: {error}"
        );
    }
}

#[tokio::test]
async fn a_success_before_the_end_is_none() {
    let service = crate::service();
    let (writing, mut socket) = writing(&service, "{\"from\":0}\n").await;
    // All comes, nothing is acknowledged.
    let mut sent = Vec::new();
    loop {
        match next(&mut socket).await {
            message if message == [0, 0] => break,
            message if message[..2] == [0, 0] => sent.extend_from_slice(&message[2..]),
            _ => {}
        }
    }
    assert_eq!(&sent[4..11], b"content");
    drop(socket);
    // The guest has them, it says: then there is nothing left to send.
    let action = guest(&service).poll_as_agent().await;
    let mut socket = guest(&service).dial_shell_v2(&action).await;
    let first = format!("\0\x01{{\"from\":{}}}\n", sent.len());
    socket.send(Message::binary(first.into_bytes())).await.unwrap();
    assert_eq!(next(&mut socket).await, [0, 0]);
    for message in [&b"\0\x01"[..], b"\0\x02", &[5, 0]] {
        socket.send(Message::binary(message.to_vec())).await.unwrap();
    }
    assert_eq!(writing.await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn a_guest_that_exits_at_once_has_not_taken_the_file() {
    let service = crate::service();
    let writing = start(&service, async |s: MetaService| {
        let endless = tokio::io::repeat(7);
        s.write(Destination::file("/f"), endless).await
    });
    let action = guest(&service).poll_as_agent().await;
    let mut socket = guest(&service).dial_shell_v2(&action).await;
    for message in [&b"\0\x01{\"from\":0}\n"[..], b"\0\x01", b"\0\x02", &[5, 0]] {
        socket.send(Message::binary(message.to_vec())).await.unwrap();
    }
    // It closes, and reads what is on its way.
    let _ = socket.close(None).await;
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
    assert!(matches!(writing.await.unwrap(), Err(WriteError::Action(ActionError::Invalid(_)))));
}

/// An agent that can read is gone, one of version 1 has come in its place.
#[tokio::test]
async fn an_artifact_falls_back_to_version_1() {
    let service = crate::service();
    let announced = [("Metaservice-Agent", AGENT)];
    guest(&service).request("GET", "/engine/v1/execute", &announced, b"").await;
    let fetching = start(&service, async |s: MetaService| s.read("/f").spool().await);
    tokio::task::yield_now().await;
    let action = guest(&service).poll().await;
    assert_eq!(action["type"], "get-artifact");
    guest(&service).post(&reply_to(&action), b"content").await;
    assert_eq!(fetching.await.unwrap().unwrap().len(), 7);
}

#[tokio::test]
async fn an_artifact_is_the_extended_read_where_there_is_one() {
    let service = crate::service();
    let announced = [("Metaservice-Agent", AGENT)];
    let answer = guest(&service).request("GET", "/engine/v1/execute", &announced, b"").await;
    assert!(answer.headers["metaservice-service"].contains("\"shell2\":true"));
    let fetching = start(&service, async |s: MetaService| s.read("/f").spool().await);
    let action = guest(&service).poll_as_agent().await;
    assert_eq!(action["type"], "read");
    let gone = [("Metaservice-Failure", r#"{"code":"not-a-file","message":"a directory"}"#)];
    guest(&service).request("POST", &reply_to(&action), &gone, b"").await;
    assert!(matches!(fetching.await.unwrap(), Err(ReadError::NotFound(_))));
}

#[tokio::test]
async fn a_write_notices_a_guest_that_is_gone_while_its_source_is_silent() {
    let service = crate::service();
    let writing = start(&service, async |s: MetaService| {
        let (source, _silent) = tokio::io::duplex(16);
        s.write(Destination::file("/f"), source).await
    });
    let action = guest(&service).poll_as_agent().await;
    let mut socket = guest(&service).dial_shell_v2(&action).await;
    let failure = br#"{"code":"no-space","message":"full"}"#;
    let exit = [&[5, 1][..], failure].concat();
    for message in [&b"\0\x01{\"from\":0}\n"[..], b"\0\x01", b"\0\x02", &exit] {
        socket.send(Message::binary(message.to_vec())).await.unwrap();
    }
    let Err(WriteError::Action(ActionError::Failed(failure))) = writing.await.unwrap() else {
        panic!()
    };
    assert_eq!(failure.code, FailureCode::NoSpace);
}
