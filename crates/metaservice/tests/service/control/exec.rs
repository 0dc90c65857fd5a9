//! Commands over the control API.

use std::collections::BTreeMap;

use futures_util::{SinkExt, StreamExt};
use metaservice::Command;
use metaservice::control::{Client, Code};
use metaservice_testing::guest::reply_to;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::{Controlled, controlled, raw};
use crate::guest;

#[tokio::test]
async fn a_shell_goes_through_both_websockets() {
    let Controlled { service, client, _directory } = controlled();
    let command = ["cat".to_owned(), "a b".to_owned()];
    let (shell, mut socket) = tokio::join!(client.exec(command).terminal().spawn(), async {
        let action = guest(&service).poll().await;
        assert_eq!(action["command"], serde_json::json!(["cat", "a b"]));
        assert_eq!(action["tty"], true);
        guest(&service).dial_shell(&action).await
    });
    let mut shell = shell.unwrap();
    shell.set_size(80, 24);
    let mut stdin = shell.stdin.take().unwrap();
    let content: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let writing = async {
        stdin.write_all(&content).await.unwrap();
        stdin.shutdown().await.unwrap();
    };
    // The guest sends back what it gets, and acknowledges it.
    let echoing = async {
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Binary(block) if block[..2] == [0, 0] => {
                    let ends = block.len() == 2;
                    let count = u32::try_from(block.len() - 2).unwrap().to_be_bytes();
                    let echo = [&[0, 1], &block[2..]].concat();
                    socket.send(Message::binary(echo)).await.unwrap();
                    socket.send(Message::binary([&[1, 0][..], &count].concat())).await.unwrap();
                    if ends {
                        break;
                    }
                }
                _ => {}
            }
        }
        socket.send(Message::binary(vec![5, 0])).await.unwrap();
        socket.close(None).await.unwrap();
    };
    let mut echoed = Vec::new();
    let mut stdout = shell.stdout.take().unwrap();
    let (_, _, read) = tokio::join!(writing, echoing, stdout.read_to_end(&mut echoed));
    read.unwrap();
    assert!(echoed == content);
    assert_eq!(shell.wait().await.map(|status| status.success()), Ok(true));
}

/// The guest's end is closed in order and at once when the shell has exited, also while a client
/// that does not listen keeps its own end.
#[tokio::test]
async fn an_exit_closes_the_guests_end_whatever_the_client_does() {
    use std::time::Duration;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
    let Controlled { service, client: _client, _directory } = controlled();
    for closes in [true, false] {
        let stream = UnixStream::connect(_directory.path().join("job.sock")).await.unwrap();
        let dialling =
            tokio_tungstenite::client_async("ws://job/v1/shell?command=[%22true%22]", stream);
        let guest = async {
            let action = guest(&service).poll().await;
            guest(&service).dial_shell(&action).await
        };
        let (client, mut socket) = tokio::join!(dialling, guest);
        socket.send(Message::binary(&b"\x05\0"[..])).await.unwrap();
        if closes {
            let (code, reason) = (CloseCode::Normal, "".into());
            socket.close(Some(CloseFrame { code, reason })).await.unwrap();
        }
        let ended = tokio::time::timeout(Duration::from_secs(30), async {
            let mut code = None;
            while let Some(message) = socket.next().await {
                if let Ok(Message::Close(frame)) = message {
                    code = frame.map(|frame| frame.code);
                }
            }
            code
        });
        assert_eq!(ended.await, Ok(Some(CloseCode::Normal)), "{closes}");
        drop(client);
    }
}

/// An exec of 2 MiB in arguments of 128 KiB, as text that needs escaping where it can.
fn large(client: &Client) -> Command<'_, Client> {
    let (command, env) = large_words();
    client.exec(command).envs(env)
}

fn large_words() -> (Vec<String>, BTreeMap<String, String>) {
    let argument = "%\u{1}\"\u{e4}".repeat(128 * 1024 / 5);
    let mut command = vec!["echo".to_owned()];
    command.extend(std::iter::repeat_n(argument.clone(), 8));
    (command, (0..8).map(|number| (format!("V{number}"), argument.clone())).collect())
}

#[tokio::test]
async fn two_mebibytes_of_command_and_environment_reach_the_guest() {
    use metaservice_protocol::header::{AGENT_HEADER, FAILURE_HEADER};
    use metaservice_protocol::{AgentInfo, Capabilities, Failure, FailureCode};

    let Controlled { service, client, _directory } = controlled();
    let agent = AgentInfo { capabilities: Capabilities::all(), ..AgentInfo::default() }.to_header();
    let refusing = async || {
        let announced = [(AGENT_HEADER, agent.as_str())];
        let action = guest(&service).request("GET", "/engine/v1/poll", &announced, b"").await;
        let action = action.json();
        let failure = Failure::new(FailureCode::Invalid, "seen").to_header();
        let headers = [(FAILURE_HEADER, failure.as_str())];
        guest(&service).request("POST", &reply_to(&action), &headers, b"").await;
        action
    };
    let (command, env) = large_words();
    for detached in [false, true] {
        let asking = async {
            match detached {
                false => large(&client).spawn().await.map(drop),
                true => large(&client).spawn_detached().await.map(drop),
            }
        };
        let (refused, action) = tokio::join!(asking, refusing());
        assert_eq!(refused.unwrap_err().to_string(), "seen");
        assert_eq!(action["command"], serde_json::json!(command));
        assert_eq!(action["options"]["env"], serde_json::json!(env));
    }
    // A shell of version 1 has the same way to the service.
    let described = serde_json::json!({ "command": command, "tty": true }).to_string();
    let (status, id) = raw(&client, "POST", "/v1/commands", &described).await;
    assert_eq!(status, 200);
    let url = format!("ws://job/v1/shell?id={}", id["id"].as_str().unwrap());
    let stream = UnixStream::connect(client.socket()).await.unwrap();
    let (shell, action) = tokio::join!(tokio_tungstenite::client_async(url, stream), async {
        let action = guest(&service).poll().await;
        let socket = guest(&service).dial_shell(&action).await;
        (action, socket)
    });
    shell.unwrap();
    assert_eq!(action.0["command"], serde_json::json!(command));
    assert_eq!(action.0["tty"], true);

    let longer = client.exec(["\u{1}".repeat(3 << 20)]);
    for refused in [
        longer.clone().spawn().await.map(drop).unwrap_err(),
        longer.spawn_detached().await.map(drop).unwrap_err(),
    ] {
        assert_eq!(refused.code(), Some(Code::InvalidRequest));
        assert!(refused.to_string().contains("16777216 bytes"), "{refused}");
    }
}

#[tokio::test]
async fn a_large_exec_is_not_sent_to_an_agent_that_cannot_read_it() {
    use metaservice_protocol::header::AGENT_HEADER;

    let Controlled { service, client, _directory } = controlled();
    let agent = r#"{"version":"0.1.0","capabilities":["exec"]}"#;
    let polling = service.clone();
    let poll = tokio::spawn(async move {
        let announced = [(AGENT_HEADER, agent)];
        guest(&polling).request("GET", "/engine/v1/poll", &announced, b"").await
    });
    let refused = large(&client).spawn().await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Some(Code::Unsupported), "{refused}");
    assert!(!poll.is_finished());
    // A client of before says all of it in the target, and is served as ever.
    let (asked, ()) =
        tokio::join!(raw(&client, "GET", "/v1/exec?exec=%7B%22command%22:[]%7D", ""), async {});
    assert_eq!((asked.0, &asked.1["code"]), (400, &"InvalidRequest".into()), "no upgrade");
}

#[tokio::test]
async fn a_job_of_an_older_version_gets_the_command_in_the_target() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("job.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let refusal = r#"{"code":"NoSuchEndPoint","message":"nothing is served at this path"}"#;
    let answer = format!(
        "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{refusal}",
        refusal.len()
    );
    let job = async {
        let mut lines = Vec::new();
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 64 * 1024];
            let count = stream.read(&mut asked).await.unwrap();
            let text = String::from_utf8_lossy(&asked[..count]);
            lines.push(text.lines().next().unwrap().to_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        lines
    };
    let client = Client::new(socket);
    let asking = async {
        let small = client.exec(["a"]).spawn().await;
        assert_eq!(small.map(drop).unwrap_err().code(), Some(Code::NoSuchEndPoint));
        let refused = large(&client).spawn().await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Some(Code::Unsupported));
        assert!(refused.to_string().contains("older metaservice"), "{refused}");
    };
    let ((), lines) = tokio::join!(asking, job);
    assert_eq!(lines[0], "POST /v1/commands HTTP/1.1");
    assert!(lines[1].starts_with("GET /v1/exec?exec=%7B%22command%22"), "{lines:?}");
    assert_eq!(lines[2], "GET /v1/commands HTTP/1.1");
}

#[tokio::test]
async fn an_exec_goes_through_in_stream_protocol_v2_with_its_large_window() {
    use metaservice_protocol::header::{AGENT_HEADER, SHELL2_PROTOCOL};
    use metaservice_protocol::{AgentInfo, Capabilities};
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    const SENT: usize = 600_000;

    let Controlled { service, client, _directory } = controlled();
    let agent = AgentInfo { capabilities: Capabilities::all(), ..AgentInfo::default() }.to_header();
    let exec = client.exec(["cat"]).workdir("/tmp").spawn();
    let announced = [(AGENT_HEADER, agent.as_str())];
    let guest = async {
        let action = guest(&service).request("GET", "/engine/v1/poll", &announced, b"").await;
        let action = action.json();
        assert_eq!(action["type"], "exec");
        let url = format!("ws://169.254.169.254{}", reply_to(&action));
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", SHELL2_PROTOCOL.parse().unwrap());
        tokio_tungstenite::client_async(request, guest(&service).dial()).await.unwrap().0
    };
    let (shell, mut socket) = tokio::join!(exec, guest);
    let mut shell = shell.unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    let writing = async { stdin.write_all(&vec![7; SENT]).await.unwrap() };
    // Nothing is acknowledged: more than stream protocol v1's window comes all the same.
    let reading = async {
        let mut received = 0;
        while received < SENT {
            if let Message::Binary(block) = socket.next().await.unwrap().unwrap()
                && block[..2] == [0, 0]
            {
                received += block.len() - 2;
            }
        }
        received
    };
    let ((), received) = tokio::join!(writing, reading);
    assert_eq!(received, SENT);
    assert_eq!(client.job().await.unwrap().agent.unwrap().capabilities, Capabilities::all());
}
