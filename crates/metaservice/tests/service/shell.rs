//! Shells, against a guest that speaks the messages of the protocol page by hand.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use metaservice::{ActionError, Child, ChildError, ExecError, MetaService};
use metaservice_testing::guest::{Socket, next, reply_to};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::guest;

async fn open(service: &MetaService, tty: bool) -> (Child, Socket) {
    let opening = tokio::spawn({
        let service = service.clone();
        async move {
            {
                let exec = service.exec(["sh", "-c", "x"]);
                if tty { exec.terminal() } else { exec }.spawn().await
            }
        }
    });
    let action = guest(service).poll().await;
    assert_eq!(action["type"], "exec-shell");
    assert_eq!(action["command"], serde_json::json!(["sh", "-c", "x"]));
    assert_eq!(action["tty"], tty);
    let socket = guest(service).dial_shell(&action).await;
    (opening.await.unwrap().unwrap(), socket)
}

async fn send(socket: &mut Socket, message: &[u8]) {
    socket.send(Message::binary(message.to_vec())).await.unwrap();
}

async fn read_all(output: Option<metaservice::ChildOutput>) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    output.unwrap().read_to_end(&mut all).await.map(|_| all)
}

#[tokio::test]
async fn outputs_come_apart_and_the_exit_after_them() {
    let service = crate::service();
    for (status, success) in [(0u8, true), (1, false)] {
        let (mut shell, mut socket) = open(&service, false).await;
        for message in [&b"\0\x01out"[..], b"\0\x02err", b"\0\x01put", b"\0\x01", b"\0\x02"] {
            send(&mut socket, message).await;
        }
        send(&mut socket, &[5, status]).await;
        socket.close(None).await.unwrap();
        assert_eq!(shell.wait().await.map(|status| status.success()), Ok(success));
        assert_eq!(read_all(shell.stdout.take()).await.unwrap(), b"output");
        assert_eq!(read_all(shell.stderr.take()).await.unwrap(), b"err");
    }
}

/// After an exit the host closes with the status of an orderly end and the connection ends at once,
/// whether the guest has ended its outputs and closed the websocket itself or not.
#[tokio::test(start_paused = true)]
async fn an_exit_closes_the_stream_in_order_and_at_once() {
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
    let service = crate::service();
    for (ended, closes) in [(true, true), (true, false), (false, true), (false, false)] {
        let begun = tokio::time::Instant::now();
        let (mut shell, mut socket) = open(&service, false).await;
        send(&mut socket, b"\0\x01out").await;
        if ended {
            send(&mut socket, b"\0\x01").await;
            send(&mut socket, b"\0\x02").await;
        }
        send(&mut socket, &[5, 1]).await;
        if closes {
            let reason = "".into();
            socket.close(Some(CloseFrame { code: CloseCode::Normal, reason })).await.unwrap();
        }
        assert_eq!(shell.wait().await.map(|status| status.success()), Ok(false));
        assert_eq!(read_all(shell.stdout.take()).await.unwrap(), b"out");
        assert_eq!(read_all(shell.stderr.take()).await.unwrap(), b"");
        let mut closed = None;
        while let Some(message) = socket.next().await {
            if let Ok(Message::Close(frame)) = message {
                closed = frame.map(|frame| frame.code);
            }
        }
        assert_eq!(closed, Some(CloseCode::Normal), "{ended} {closes}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn stdin_goes_in_blocks_within_the_window() {
    let service = crate::service();
    let (mut shell, mut socket) = open(&service, false).await;
    let content: Vec<u8> = (0..1_000_007u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut stdin = shell.stdin.take().unwrap();
    let writing = tokio::spawn({
        let content = content.clone();
        async move {
            stdin.write_all(&content).await.unwrap();
            stdin.shutdown().await.unwrap();
        }
    });
    let (mut received, mut unacknowledged) = (Vec::<u8>::new(), 0u32);
    loop {
        let message = next(&mut socket).await;
        assert_eq!(message[..2], [0, 0]);
        assert!(message.len() <= 2 + 16 * 1024);
        if message.len() == 2 {
            break;
        }
        received.extend(&message[2..]);
        unacknowledged += u32::try_from(message.len() - 2).unwrap();
        assert!(unacknowledged <= 64 * 1024, "more in flight than the window");
        if unacknowledged == 64 * 1024 || received.len() == content.len() {
            let ack = [&[1, 0][..], &unacknowledged.to_be_bytes()].concat();
            send(&mut socket, &ack).await;
            unacknowledged = 0;
        }
    }
    writing.await.unwrap();
    assert!(received == content);
    // Closing stdin is no abort: the result still comes.
    send(&mut socket, &[5, 0]).await;
    assert_eq!(shell.wait().await.map(|status| status.success()), Ok(true));
}

#[tokio::test]
async fn reading_acknowledges_and_not_reading_holds_back() {
    let service = crate::service();
    let (mut shell, mut socket) = open(&service, false).await;
    let block = [&[0, 1][..], &[9; 16 * 1024]].concat();
    for _ in 0..4 {
        send(&mut socket, &block).await;
    }
    let mut stdout = shell.stdout.take().unwrap();
    let mut read = vec![0; 64 * 1024];
    stdout.read_exact(&mut read).await.unwrap();
    let mut acknowledged = 0;
    while acknowledged < 64 * 1024 {
        let message = next(&mut socket).await;
        assert_eq!((message.len(), &message[..2]), (6, &[1, 1][..]));
        acknowledged += u32::from_be_bytes(message[2..].try_into().unwrap());
    }
    assert_eq!(acknowledged, 64 * 1024);
}

#[tokio::test]
async fn a_guest_that_ignores_the_window_is_cut() {
    let service = crate::service();
    let (mut shell, mut socket) = open(&service, false).await;
    let block = [&[0, 1][..], &[9; 16 * 1024]].concat();
    for _ in 0..5 {
        send(&mut socket, &block).await;
    }
    assert_eq!(shell.wait().await, Err(ChildError::Disconnected));
    // What came within the window can be read, then comes the error.
    let mut stdout = shell.stdout.take().unwrap();
    let mut read = Vec::new();
    let error = stdout.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(read.len(), 64 * 1024);
}

#[tokio::test]
async fn an_output_without_a_reader_does_not_hold_the_guest_back() {
    let service = crate::service();
    let (mut shell, mut socket) = open(&service, false).await;
    drop(shell.stdout.take());
    let block = [&[0, 1][..], &[9; 16 * 1024]].concat();
    let mut room = 64 * 1024u32;
    for _ in 0..100 {
        while room < 16 * 1024 {
            let message = next(&mut socket).await;
            if message[0] == 1 {
                room += u32::from_be_bytes(message[2..].try_into().unwrap());
            }
        }
        send(&mut socket, &block).await;
        room -= 16 * 1024;
    }
    send(&mut socket, &[5, 0]).await;
    assert_eq!(shell.wait().await.map(|status| status.success()), Ok(true));
}

#[tokio::test]
async fn abort_reaches_the_guest_and_waiting_says_so() {
    let service = crate::service();
    let (shell, mut socket) = open(&service, true).await;
    shell.set_size(132, 43);
    assert_eq!(next(&mut socket).await, [3, 0, 132, 0, 43]);
    shell.abort();
    assert_eq!(next(&mut socket).await, [4]);
    send(&mut socket, &[5, 0]).await;
    assert_eq!(shell.wait().await, Err(ChildError::Aborted));
}

#[tokio::test]
async fn dropping_the_shell_aborts_it() {
    let service = crate::service();
    let (shell, mut socket) = open(&service, false).await;
    drop(shell);
    let mut seen = Vec::new();
    while seen.last() != Some(&vec![4]) {
        seen.push(next(&mut socket).await);
    }
}

#[tokio::test]
async fn a_connection_that_dies_is_told_everywhere() {
    let service = crate::service();
    let (mut shell, mut socket) = open(&service, false).await;
    send(&mut socket, b"\0\x01half").await;
    drop(socket);
    assert_eq!(shell.wait().await, Err(ChildError::Disconnected));
    let mut stdout = shell.stdout.take().unwrap();
    let mut half = [0; 4];
    stdout.read_exact(&mut half).await.unwrap();
    assert!(stdout.read_u8().await.is_err());
    assert!(shell.stdin.take().unwrap().write_all(b"x").await.is_err());
}

#[tokio::test]
async fn shutdown_ends_a_shell() {
    let service = crate::service();
    let (shell, _socket) = open(&service, false).await;
    service.shutdown().await.unwrap();
    assert_eq!(shell.wait().await, Err(ChildError::Terminated));
}

#[tokio::test(start_paused = true)]
async fn a_silent_guest_is_given_up_after_45_seconds() {
    let service = crate::service();
    let begun = tokio::time::Instant::now();
    let (shell, _silent) = open(&service, false).await;
    assert_eq!(shell.wait().await, Err(ChildError::Disconnected));
    assert_eq!(begun.elapsed().as_secs(), 45);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_answers_pings_is_kept_for_hours() {
    let service = crate::service();
    let (shell, mut socket) = open(&service, false).await;
    let answering = tokio::spawn(async move {
        let mut pings = 0;
        while pings < 480 {
            if let Message::Ping(_) = socket.next().await.unwrap().unwrap() {
                pings += 1;
            }
        }
        send(&mut socket, &[5, 0]).await;
        socket
    });
    let begun = tokio::time::Instant::now();
    assert_eq!(shell.wait().await.map(|status| status.success()), Ok(true));
    assert_eq!(begun.elapsed().as_secs(), 480 * 15);
    drop(answering.await.unwrap());
}

#[tokio::test]
async fn an_unknown_message_is_ignored() {
    let service = crate::service();
    let (mut shell, mut socket) = open(&service, false).await;
    socket.send(Message::text("hello")).await.unwrap();
    for message in
        [&b""[..], &[9, 9], &[0], &[0, 3, 1], &[1, 0, 1], &[5], &[5, 0, 0], &[3, 0], &[4]]
    {
        send(&mut socket, message).await;
    }
    for message in [&b"\0\x01ok"[..], b"\0\x01", &[5, 0]] {
        send(&mut socket, message).await;
    }
    assert_eq!(shell.wait().await.map(|status| status.success()), Ok(true));
    assert_eq!(read_all(shell.stdout.take()).await.unwrap(), b"ok");
}

#[tokio::test]
async fn a_message_larger_than_allowed_ends_the_shell() {
    let service = crate::service();
    let (shell, mut socket) = open(&service, false).await;
    let _ = socket.send(Message::binary(vec![0; 20 * 1024 + 1])).await;
    assert_eq!(shell.wait().await, Err(ChildError::Disconnected));
}

#[tokio::test]
async fn a_reply_that_is_no_websocket_does_not_use_the_action_up() {
    let service = crate::service();
    let opening = tokio::spawn({
        let service = service.clone();
        async move { service.exec(Vec::<String>::new()).spawn().await }
    });
    let action = guest(&service).poll().await;
    let target = reply_to(&action);
    assert_eq!(guest(&service).get(&target).await.error().1, "InvalidPayload");
    assert_eq!(guest(&service).post(&target, b"").await.error().1, "MethodNotAllowed");
    let mut socket = guest(&service).dial_shell(&action).await;
    send(&mut socket, &[5, 0]).await;
    assert!(opening.await.unwrap().unwrap().wait().await.unwrap().success());
}

#[tokio::test(start_paused = true)]
async fn a_shell_is_tried_once() {
    let service = crate::service();
    let opening = tokio::spawn({
        let service = service.clone();
        async move { service.exec(["x"]).spawn().await.map(drop) }
    });
    guest(&service).poll().await;
    let begun = tokio::time::Instant::now();
    assert!(matches!(opening.await.unwrap(), Err(ExecError::Action(ActionError::TimedOut(_)))));
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
}
