//! The extended actions, against a guest that speaks them by hand: what it says wrong has an end,
//! and a guest of version 1 hears nothing of them.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use metaservice::{
    ActionError, ArtifactError, Capability, Destination, Exec, ExecOptions, ExtensionError,
    FailureCode, Form, MetaService, Reading, Stage, TransportError,
};
use metaservice_protocol::transfer::Encoder;
use metaservice_testing::guest::{AGENT, Answer, Socket, head, next, reply_to};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::{guest, start};

const FILE: (&str, &str) =
    ("Metaservice-File", r#"{"form":"file","size":9,"mode":420,"mtimeNs":1700000000123456789}"#);

fn exec(env: &[(&str, &str)]) -> Exec {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = ExecOptions { env, ..ExecOptions::default() };
    Exec { command: vec!["id".to_owned()], tty: false, options }
}

/// Begins to read a file and takes the action as an agent that can.
async fn reading(
    service: &MetaService,
) -> (tokio::task::JoinHandle<Result<Reading, ExtensionError>>, String) {
    let reading = start(service, async |s: MetaService| s.read("/f", Form::File).await);
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
    assert_eq!(reading.head().mode, 0o644);
    assert_eq!(reading.head().mtime_ns, 1_700_000_000_123_456_789);
    let mut read = Vec::new();
    reading.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"some text");
    assert_eq!(sending.await.unwrap().status, 200, "the guest hears that all of it came");
}

/// An answer would be taken for the log's end by a guest that has noticed nothing yet.
#[tokio::test]
async fn a_log_that_is_cut_on_its_way_here_alone_is_not_answered() {
    let (drain, mut written) = tokio::io::duplex(1024);
    let service = MetaService::builder(["true"]).log(drain).start().unwrap();
    let place = ("Metaservice-Log", r#"{"stream":"s","offset":0}"#);
    let mut stream = guest(&service).dial();
    let begun = head("POST", "/engine/v1/log", &[place, ("Content-Length", "5")]);
    stream.write_all(&[&begun[..], b"some"].concat()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(String::from_utf8_lossy(&answer), "");
    assert_eq!(
        guest(&service).request("POST", "/engine/v1/log", &[place], b"some text").await.status,
        200
    );
    let mut log = [0; 9];
    written.read_exact(&mut log).await.unwrap();
    assert_eq!(&log, b"some text");
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
    let Err(ExtensionError::Refused(failure)) = reading.await.unwrap() else { panic!() };
    assert_eq!(failure.code, FailureCode::NotFound);
    assert!(!failure.message.chars().any(char::is_control), "{:?}", failure.message);
}

#[tokio::test]
async fn a_line_without_an_end_has_one() {
    let service = crate::service();
    let listing = start(&service, async |s: MetaService| s.list("/d", false).await);
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
    assert!(matches!(lines.next().await, Err(ExtensionError::Invalid(_))));
    assert!(matches!(lines.next().await, Ok(None)));
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
        let listing = start(&service, async |s: MetaService| s.list("/d", true).await);
        let target = reply_to(&guest(&service).poll_as_agent().await);
        let end = if what == "failed" { "\n" } else { "" };
        let body = format!("{line}\n{rest}{end}");
        let sending = tokio::spawn({
            let service = service.clone();
            async move { guest(&service).post(&target, body.as_bytes()).await.status }
        });
        let mut lines = listing.await.unwrap().unwrap();
        assert_eq!(lines.next().await.unwrap().unwrap().path, "a");
        match lines.next().await {
            Ok(None) => assert!(whole, "{what}"),
            Err(ExtensionError::Refused(failure)) => {
                assert_eq!((what, failure.message.as_str()), ("failed", "/d/b: no"));
            }
            other => assert!(what == "cut", "{what}: {other:?}"),
        }
        assert_eq!(sending.await.unwrap(), if whole { 200 } else { 500 }, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn silent_stats_are_given_up() {
    let service = crate::service();
    let asking = start(&service, async |s: MetaService| s.stats(None).await);
    let target = reply_to(&guest(&service).poll_as_agent().await);
    let mut stream = guest(&service).dial();
    stream.write_all(&head("POST", &target, &[("Content-Length", "100")])).await.unwrap();
    let mut lines = asking.await.unwrap().unwrap();
    let begun = tokio::time::Instant::now();
    let Err(ExtensionError::Action(ActionError::Transport(TransportError::Stalled))) =
        lines.next().await
    else {
        panic!()
    };
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn a_detached_exec_says_its_process_id_in_one_line() {
    for (body, valid) in [("{\"pid\":7}", true), ("{\"pid\":-1}", false), ("", false)] {
        let service = crate::service();
        let starting = start(&service, async |s: MetaService| s.exec_detached(exec(&[])).await);
        let target = reply_to(&guest(&service).poll_as_agent().await);
        guest(&service).post(&target, body.as_bytes()).await;
        match starting.await.unwrap() {
            Ok(pid) => assert!(valid && pid == 7),
            Err(error) => assert!(!valid && matches!(error, ExtensionError::Invalid(_)), "{error}"),
        }
    }
    let service = crate::service();
    let starting = start(&service, async |s: MetaService| s.exec_detached(exec(&[])).await);
    let target = reply_to(&guest(&service).poll_as_agent().await);
    let refusal = guest(&service).post(&target, &vec![b' '; 64 * 1024 + 1]).await.error();
    assert_eq!(refusal, (400, "InvalidPayload".to_owned()));
    guest(&service).post(&target, b"{\"pid\":9}").await;
    assert_eq!(starting.await.unwrap().unwrap(), 9);
}

#[tokio::test]
async fn an_exec_tells_its_exit_code_and_a_detail_that_makes_no_sense_tells_none() {
    let details: [(&[u8], Option<i32>); 4] = [
        (br#"{"reason":"exited","exitCode":42}"#, Some(42)),
        (b"", None),
        (b"{\"reason\":\"exited\",\"exitCode\":70000}", None),
        (b"\xff\xfe", None),
    ];
    for (detail, code) in details {
        let service = crate::service();
        let opening = start(&service, async |s: MetaService| s.exec(exec(&[("A", "b")])).await);
        let action = guest(&service).poll_as_agent().await;
        assert_eq!(action["options"]["env"], serde_json::json!({"A": "b"}));
        let mut socket = guest(&service).dial_shell_v2(&action).await;
        let shell = opening.await.unwrap().unwrap();
        for message in [&b"\0\x01"[..], b"\0\x02", &[&[5, 1][..], detail].concat()] {
            socket.send(Message::binary(message.to_vec())).await.unwrap();
        }
        assert_eq!(shell.wait().await, Ok(false));
        let ending = shell.ending();
        assert_eq!(ending.and_then(|ending| ending.exit_code).map(i32::from), code);
    }
}

#[tokio::test]
async fn a_stream_of_ours_is_not_taken_over_version_1() {
    let service = crate::service();
    let dialling = start(&service, async |s: MetaService| s.dial("localhost", 80).await);
    let action = guest(&service).poll_as_agent().await;
    let url = format!("ws://169.254.169.254{}", reply_to(&action));
    let error = tokio_tungstenite::client_async(url, guest(&service).dial()).await.unwrap_err();
    assert!(error.to_string().contains("400"), "{error}");
    // It stays pending for one who knows.
    let _socket = guest(&service).dial_shell_v2(&action).await;
    dialling.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dialled_connection_half_closes_and_is_reset_when_dropped() {
    let service = crate::service();
    let dialling = start(&service, async |s: MetaService| s.dial("localhost", 80).await);
    let action = guest(&service).poll_as_agent().await;
    assert_eq!(action["options"], serde_json::json!({"host": "localhost", "port": 80}));
    let mut socket = guest(&service).dial_shell_v2(&action).await;
    let mut dialled = dialling.await.unwrap().unwrap();
    dialled.write_all(b"question").await.unwrap();
    dialled.shutdown().await.unwrap();
    assert_eq!(next(&mut socket).await, b"\0\0question");
    assert_eq!(next(&mut socket).await, b"\0\0");
    // The other half is open still.
    socket.send(Message::binary(b"\0\x01ans".to_vec())).await.unwrap();
    let mut answer = [0; 3];
    dialled.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ans");
    drop(dialled);
    loop {
        let message = next(&mut socket).await;
        if message == [4] {
            break;
        }
        assert_eq!(message[0], 1, "an ack may come before the abort: {message:?}");
    }
}

/// Begins to write a file; returns the guest's end of the stream.
async fn writing(
    service: &MetaService,
    first: &str,
) -> (tokio::task::JoinHandle<Result<u64, ExtensionError>>, Socket) {
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
        assert!(matches!(error, ExtensionError::Invalid(_)), "{first:.20}: {error}");
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
    assert!(matches!(writing.await.unwrap(), Err(ExtensionError::Invalid(_))));
}

/// A guest of version 1 takes what is behind an action that it cannot do.
#[tokio::test]
async fn what_version_1_cannot_do_is_unsupported_at_once() {
    let service = crate::service();
    let signalling = start(&service, async |s: MetaService| s.signal(15).await);
    let reading = start(&service, async |s: MetaService| s.read("/f", Form::Any).await.map(|_| ()));
    let running = start(&service, async |s: MetaService| s.exec(exec(&[("A", "b")])).await);
    tokio::task::yield_now().await;
    let killing = start(&service, async |s: MetaService| s.kill_process().await);
    tokio::task::yield_now().await;
    let action = guest(&service).poll().await;
    assert_eq!(action["type"], "kill-process");
    assert_eq!(action.as_object().unwrap().len(), 5, "{action}");
    guest(&service).post(&reply_to(&action), b"").await;
    killing.await.unwrap().unwrap();
    let unsupported = |error: ExtensionError| match error {
        ExtensionError::Unsupported(capability) => capability,
        other => panic!("{other}"),
    };
    assert_eq!(unsupported(signalling.await.unwrap().unwrap_err()), Capability::Signal);
    assert_eq!(unsupported(reading.await.unwrap().unwrap_err()), Capability::Read);
    assert_eq!(unsupported(running.await.unwrap().unwrap_err()), Capability::Exec);
}

/// What version 1 has a word for is asked in that word.
#[tokio::test]
async fn an_exec_of_nothing_more_is_an_exec_shell_to_version_1() {
    let service = crate::service();
    let opening = start(&service, async |s: MetaService| s.exec(exec(&[])).await);
    let action = guest(&service).poll().await;
    assert_eq!(action["type"], "exec-shell");
    assert_eq!(action["command"], serde_json::json!(["id"]));
    let _socket = guest(&service).dial_shell(&action).await;
    opening.await.unwrap().unwrap();
}

/// An agent that can read is gone, one of version 1 has come in its place.
#[tokio::test]
async fn an_artifact_falls_back_to_version_1() {
    let service = crate::service();
    let announced = [("Metaservice-Agent", AGENT)];
    guest(&service).request("GET", "/engine/v1/execute", &announced, b"").await;
    let fetching = start(&service, async |s: MetaService| s.get_artifact("/f").await);
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
    let fetching = start(&service, async |s: MetaService| s.get_artifact("/f").await);
    let action = guest(&service).poll_as_agent().await;
    assert_eq!(action["type"], "read");
    let gone = [("Metaservice-Failure", r#"{"code":"not-a-file","message":"a folder"}"#)];
    guest(&service).request("POST", &reply_to(&action), &gone, b"").await;
    assert!(matches!(fetching.await.unwrap(), Err(ArtifactError::NotFound)));
}

/// Every answer that a guest of version 1 gets is as the protocol page has it.
#[tokio::test(start_paused = true)]
async fn a_guest_of_version_1_sees_nothing_of_ours() {
    let service = crate::service();
    let ours = |answer: &Answer| {
        answer.headers.keys().any(|name| name.contains("metaservice") || name.contains("protocol"))
    };
    for (method, path) in [
        ("GET", "execute"),
        ("GET", "ping"),
        ("GET", "poll"),
        ("POST", "log"),
        ("POST", "reply?id=x"),
        ("PUT", "success"),
        ("GET", "nowhere"),
        ("DELETE", "log"),
    ] {
        let answer = guest(&service).request(method, &format!("/engine/v1/{path}"), &[], b"").await;
        assert!(!ours(&answer), "{path}: {:?}", answer.headers);
    }
    let execute = guest(&service).get("/engine/v1/execute").await.json();
    assert_eq!(execute.as_object().unwrap().keys().collect::<Vec<_>>(), ["command", "env"]);
    let opening =
        start(&service, async |s: MetaService| s.exec_shell(["sh"], false).await.map(|_| ()));
    let action = guest(&service).poll().await;
    let url = format!("ws://169.254.169.254{}", reply_to(&action));
    let (_socket, response) =
        tokio_tungstenite::client_async(url, guest(&service).dial()).await.unwrap();
    let names: Vec<_> = response.headers().keys().map(http::HeaderName::as_str).collect();
    assert!(!names.contains(&"sec-websocket-protocol"), "{names:?}");
    opening.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_terminal_is_for_those_who_can_and_no_harm_to_others() {
    let size = metaservice::TerminalSize { columns: 80, rows: 24 };
    let service = MetaService::builder(["true"]).terminal(size).start().unwrap();
    let execute = guest(&service).get("/engine/v1/execute").await.json();
    assert_eq!(execute["terminal"], serde_json::json!({"columns": 80, "rows": 24}));
    assert_eq!(execute["command"], serde_json::json!(["true"]));
}

#[tokio::test(start_paused = true)]
async fn an_extended_action_is_tried_once_and_times_out() {
    let service = crate::service();
    let signalling = start(&service, async |s: MetaService| s.signal(15).await);
    let action = guest(&service).poll_as_agent().await;
    let error = signalling.await.unwrap().unwrap_err();
    let ExtensionError::Action(ActionError::TimedOut(Stage::Reply)) = error else {
        panic!("{error}")
    };
    let refusal = guest(&service).post(&reply_to(&action), b"").await.error();
    assert_eq!(refusal, (400, "UnknownActionId".to_owned()));
    let next = tokio::time::timeout(Duration::from_secs(31), guest(&service).poll_as_agent())
        .await
        .unwrap();
    assert_eq!(next["type"], "none");
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
    let Err(ExtensionError::Refused(failure)) = writing.await.unwrap() else { panic!() };
    assert_eq!(failure.code, FailureCode::NoSpace);
}
