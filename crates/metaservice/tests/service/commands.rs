//! Commands and files of an agent of version 1, by the calls that newer agents have too.

use futures_util::{SinkExt, StreamExt};
use metaservice::{ExecError, MetaService};
use metaservice_testing::guest::{Socket, reply_to};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;

use crate::{guest, start};

async fn send(socket: &mut Socket, messages: &[&[u8]]) {
    for message in messages {
        socket.send(Message::binary(message.to_vec())).await.unwrap();
    }
}

#[tokio::test]
async fn the_output_and_the_status_of_a_command_are_collected() {
    let service = crate::service();
    let running =
        start(&service, async |s: MetaService| s.exec(["cat"]).stdin("in").output().await);
    let mut socket = guest(&service).dial_shell(&guest(&service).poll().await).await;
    let mut stdin = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(block) if block[..] == [0, 0] => break,
            Message::Binary(block) if block[..2] == [0, 0] => stdin.extend_from_slice(&block[2..]),
            _ => {}
        }
    }
    assert_eq!(stdin, b"in", "stdin is sent, and ended");
    send(&mut socket, &[b"\0\x01out", b"\0\x02err", b"\0\x01", b"\0\x02", &[5, 1]]).await;
    let output = running.await.unwrap().unwrap();
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out"[..], &b"err"[..]));
    assert_eq!((output.status.success(), output.status.code()), (false, None));
}

#[tokio::test]
async fn a_command_with_too_much_output_is_aborted() {
    for (output, allowed) in [(&b"\0\x01abc"[..], true), (b"\0\x01abcd", false)] {
        let service = crate::service();
        let running =
            start(&service, async |s: MetaService| s.exec(["yes"]).output_limit(3).output().await);
        let mut socket = guest(&service).dial_shell(&guest(&service).poll().await).await;
        send(&mut socket, &[output]).await;
        if allowed {
            send(&mut socket, &[b"\0\x01", b"\0\x02", &[5, 0]]).await;
        }
        match running.await.unwrap() {
            Ok(output) => assert!(allowed && output.status.success()),
            Err(ExecError::OutputTooLong(limit)) => assert!(!allowed && limit == 3),
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_file_of_version_1_is_read_by_the_same_call() {
    let service = crate::service();
    let reading = start(&service, async |s: MetaService| s.read("/f").open().await);
    let action = guest(&service).poll().await;
    assert_eq!((&action["type"], &action["path"]), (&"get-artifact".into(), &"/f".into()));
    guest(&service).post(&reply_to(&action), b"content").await;
    let mut reading = reading.await.unwrap().unwrap();
    assert_eq!(reading.head(), None);
    let mut content = Vec::new();
    reading.read_to_end(&mut content).await.unwrap();
    assert_eq!(content, b"content");
}
