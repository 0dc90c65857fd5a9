//! The extended protocol. A version 1 guest sees nothing of it.

use std::time::Duration;

use futures_util::{SinkExt, TryStreamExt};
use metaservice::{
    ActionError, Capability, Command, ExecError, Form, MetaService, ReadError, Stage,
    TransportError,
};
use metaservice_testing::guest::{Answer, head, next, reply_to};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::{guest, start};

fn exec<'a>(service: &'a MetaService, env: &[(&str, &str)]) -> Command<'a, MetaService> {
    env.iter().fold(service.exec(["id"]), |exec, (name, value)| exec.env(*name, *value))
}

/// An answer would be taken for the log's end by a guest that has noticed nothing yet.
#[tokio::test]
async fn a_log_that_is_cut_on_its_way_here_alone_is_not_answered() {
    let (sink, mut written) = tokio::io::duplex(1024);
    let service = MetaService::builder(["true"]).log(sink).start().unwrap();
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

#[tokio::test(start_paused = true)]
async fn silent_stats_are_given_up() {
    let service = crate::service();
    let asking = start(&service, async |s: MetaService| s.stats(None).await);
    let target = reply_to(&guest(&service).poll_as_agent().await);
    let mut stream = guest(&service).dial();
    stream.write_all(&head("POST", &target, &[("Content-Length", "100")])).await.unwrap();
    let mut lines = asking.await.unwrap().unwrap();
    let begun = tokio::time::Instant::now();
    let Err(ActionError::Transport(TransportError::Stalled)) = lines.try_next().await else {
        panic!()
    };
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn a_detached_exec_says_its_process_id_in_one_line() {
    for (body, valid) in [("{\"pid\":7}", true), ("{\"pid\":-1}", false), ("", false)] {
        let service = crate::service();
        let starting = start(&service, async |s: MetaService| exec(&s, &[]).spawn_detached().await);
        let target = reply_to(&guest(&service).poll_as_agent().await);
        guest(&service).post(&target, body.as_bytes()).await;
        match starting.await.unwrap() {
            Ok(pid) => assert!(valid && pid == 7),
            Err(error) => assert!(
                !valid && matches!(error, ExecError::Action(ActionError::Invalid(_))),
                "{error}"
            ),
        }
    }
    let service = crate::service();
    let starting = start(&service, async |s: MetaService| exec(&s, &[]).spawn_detached().await);
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
        let opening = start(&service, async |s: MetaService| exec(&s, &[("A", "b")]).spawn().await);
        let action = guest(&service).poll_as_agent().await;
        assert_eq!(action["options"]["env"], serde_json::json!({"A": "b"}));
        let mut socket = guest(&service).dial_shell_v2(&action).await;
        let shell = opening.await.unwrap().unwrap();
        for message in [&b"\0\x01"[..], b"\0\x02", &[&[5, 1][..], detail].concat()] {
            socket.send(Message::binary(message.to_vec())).await.unwrap();
        }
        let status = shell.wait().await.unwrap();
        assert_eq!((status.success(), status.code().map(i32::from)), (false, code));
    }
}

#[tokio::test]
async fn a_stream_of_v2_is_not_accepted_over_v1() {
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

/// A guest of version 1 takes what is behind an action that it cannot do.
#[tokio::test]
async fn what_version_1_cannot_do_is_unsupported_at_once() {
    let service = crate::service();
    let signalling = start(&service, async |s: MetaService| s.signal(15).await);
    let reading = start(&service, async |s: MetaService| {
        s.read("/f").form(Form::Archive).open().await.map(|_| ())
    });
    let running = start(&service, async |s: MetaService| exec(&s, &[("A", "b")]).spawn().await);
    tokio::task::yield_now().await;
    let killing = start(&service, async |s: MetaService| s.kill().await);
    tokio::task::yield_now().await;
    let action = guest(&service).poll().await;
    assert_eq!(action["type"], "kill-process");
    assert_eq!(action.as_object().unwrap().len(), 5, "{action}");
    guest(&service).post(&reply_to(&action), b"").await;
    killing.await.unwrap().unwrap();
    let unsupported = |error: ActionError| match error {
        ActionError::Unsupported(capability) => capability,
        other => panic!("{other}"),
    };
    assert_eq!(unsupported(signalling.await.unwrap().unwrap_err()), Capability::Signal);
    assert_eq!(
        unsupported(match reading.await.unwrap().unwrap_err() {
            ReadError::Action(error) => error,
            other => panic!("{other}"),
        }),
        Capability::Read
    );
    assert_eq!(
        unsupported(match running.await.unwrap().unwrap_err() {
            ExecError::Action(error) => error,
            other => panic!("{other}"),
        }),
        Capability::Exec
    );
}

/// What version 1 has a word for is asked in that word.
#[tokio::test]
async fn an_exec_of_nothing_more_is_an_exec_shell_to_version_1() {
    let service = crate::service();
    let opening = start(&service, async |s: MetaService| exec(&s, &[]).spawn().await);
    let action = guest(&service).poll().await;
    assert_eq!(action["type"], "exec-shell");
    assert_eq!(action["command"], serde_json::json!(["id"]));
    let _socket = guest(&service).dial_shell(&action).await;
    opening.await.unwrap().unwrap();
}

/// Every answer that a guest of version 1 gets is as the protocol page has it.
#[tokio::test(start_paused = true)]
async fn a_guest_of_version_1_sees_no_extension() {
    let service = crate::service();
    let has_extension = |answer: &Answer| {
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
        assert!(!has_extension(&answer), "{path}: {:?}", answer.headers);
    }
    let execute = guest(&service).get("/engine/v1/execute").await.json();
    assert_eq!(execute.as_object().unwrap().keys().collect::<Vec<_>>(), ["command", "env"]);
    let opening = start(&service, async |s: MetaService| s.exec(["sh"]).spawn().await.map(|_| ()));
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
    let ActionError::TimedOut(Stage::Reply) = error else { panic!("{error}") };
    let refusal = guest(&service).post(&reply_to(&action), b"").await.error();
    assert_eq!(refusal, (400, "UnknownActionId".to_owned()));
    let next = tokio::time::timeout(Duration::from_secs(31), guest(&service).poll_as_agent())
        .await
        .unwrap();
    assert_eq!(next["type"], "none");
}
