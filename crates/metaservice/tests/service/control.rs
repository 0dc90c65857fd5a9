//! The control API over a real unix socket, against a guest by hand.

use futures_util::{SinkExt, StreamExt};
use metaservice::control::{self, Client, ClientError, Code, JobState};
use metaservice::{Exec, ExecOptions, Form, LogFrom, MetaService};
use metaservice_testing::guest::{Answer, head, reply_to};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::guest;

struct Controlled {
    service: MetaService,
    client: Client,
    _folder: tempfile::TempDir,
}

fn controlled() -> Controlled {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("job.sock");
    let service = MetaService::builder(["make", "test"]).env("SECRET", "hunter2").keep_log(16);
    let service = service.start().unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(control::serve("job", service.clone(), listener));
    Controlled { service, client: Client::new(socket), _folder: folder }
}

#[tokio::test]
async fn a_job_is_told_from_waiting_to_its_end() {
    let Controlled { service, client, _folder } = controlled();
    let job = client.job().await.unwrap();
    assert_eq!((job.name.as_str(), job.state), ("job", JobState::Waiting));
    assert_eq!(job.env, ["SECRET"], "names only");
    assert_eq!((job.command, job.pid), (vec!["make".into(), "test".into()], std::process::id()));
    guest(&service).get("/engine/v1/execute").await;
    assert_eq!(client.job().await.unwrap().state, JobState::Running);
    let header = [("Metaservice-Result", r#"{"reason":"exited","exitCode":2}"#)];
    guest(&service).request("PUT", "/engine/v1/failed", &header, b"").await;
    let job = client.job().await.unwrap();
    assert_eq!((job.state, job.status), (JobState::Failed, Some(2)));
    service.shutdown().await.unwrap();
}

#[tokio::test]
async fn files_and_folders_come_through() {
    let Controlled { service, client, _folder } = controlled();
    let replying = async |body: &[u8], headers: &[(&str, &str)]| {
        let action = guest(&service).poll().await;
        assert_eq!(action["path"], "/a b&c");
        let target = reply_to(&action);
        let answer = guest(&service).request("POST", &target, headers, body).await;
        assert_eq!(answer.status, 200);
    };
    let json = [("Content-Type", "application/json")];
    let list = br#"{"files":["/a b&c/x"],"notFound":false}"#;
    let (files, ()) = tokio::join!(client.list_folder("/a b&c"), replying(list, &json));
    assert_eq!(files.unwrap(), ["/a b&c/x"]);

    let content = vec![7; 1_000_000];
    let mut fetched = Vec::new();
    let (length, ()) =
        tokio::join!(client.get_artifact("/a b&c", &mut fetched), replying(&content, &[]));
    assert_eq!(length.unwrap(), 1_000_000);
    assert!(fetched == content);

    let missing = [("X-Taskcluster-Worker-Error", "file-not-found")];
    let mut nothing = Vec::new();
    let (error, ()) =
        tokio::join!(client.get_artifact("/a b&c", &mut nothing), replying(b"", &missing));
    assert!(matches!(error, Err(ClientError::Refused { code: Code::NotFound, .. })));
}

#[tokio::test]
async fn a_shell_goes_through_both_websockets() {
    let Controlled { service, client, _folder } = controlled();
    let command = ["cat".to_owned(), "a b".to_owned()];
    let (shell, mut socket) = tokio::join!(client.exec_shell(&command, true), async {
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
    assert_eq!(shell.wait().await, Ok(true));
}

/// The guest's end is closed in order and at once when the shell has exited, also while a client
/// that does not listen keeps its own end.
#[tokio::test]
async fn an_exit_closes_the_guests_end_whatever_the_client_does() {
    use std::time::Duration;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
    let Controlled { service, client: _client, _folder } = controlled();
    for closes in [true, false] {
        let stream = UnixStream::connect(_folder.path().join("job.sock")).await.unwrap();
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

#[tokio::test]
async fn kill_is_told_when_it_is_done() {
    let Controlled { service, client, _folder } = controlled();
    let (killed, ()) = tokio::join!(client.kill(), async {
        let action = guest(&service).poll().await;
        assert_eq!(action["type"], "kill-process");
        guest(&service).post(&reply_to(&action), b"").await;
    });
    killed.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_is_not_there_is_told_in_words() {
    let service = MetaService::builder(["true"]).start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("job.sock");
    tokio::spawn(control::serve("job", service, UnixListener::bind(&socket).unwrap()));
    let ClientError::Refused { code, message } = Client::new(socket).kill().await.unwrap_err()
    else {
        panic!("an answer of the job's")
    };
    assert_eq!(code, Code::TimedOut);
    assert_eq!(message, "the guest did not ask for the action in time (no agent polls)");
}

#[tokio::test]
async fn nobody_at_the_socket_is_unreachable() {
    let client = Client::new("/nowhere/job.sock");
    assert!(matches!(client.job().await, Err(ClientError::Unreachable(..))));
}

/// Sends one request as it is and returns the answer's status and JSON.
async fn raw(client: &Client, method: &str, target: &str, body: &str) -> (u16, serde_json::Value) {
    let mut stream = tokio::net::UnixStream::connect(client.socket()).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = Answer::parse(&answer);
    (answer.status, answer.json())
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_json() {
    let Controlled { client, _folder, .. } = controlled();
    for (method, target, body, status, code) in [
        ("GET", "/v1/files", "", 400, "InvalidRequest"),
        ("GET", "/v1/entries?path=/&recursive=perhaps", "", 400, "InvalidRequest"),
        ("GET", "/v1/log?tail=-1", "", 400, "InvalidRequest"),
        ("GET", "/v1/log?tail=1&offset=1", "", 400, "InvalidRequest"),
        ("GET", "/v1/log?sinceMs=18446744073709551616", "", 400, "InvalidRequest"),
        ("GET", "/v1/read?path=/&form=zip", "", 400, "InvalidRequest"),
        ("GET", "/v1/stats?intervalMs=99", "", 400, "InvalidRequest"),
        ("GET", "/v1/stats?intervalMs=10001", "", 400, "InvalidRequest"),
        ("GET", "/v1/dial?host=localhost&port=70000", "", 400, "InvalidRequest"),
        ("GET", "/v1/shell?command=[]", "", 400, "InvalidRequest"),
        ("GET", "/v1/exec?exec=7", "", 400, "InvalidRequest"),
        ("GET", "/v1/exec", "", 400, "InvalidRequest"),
        ("GET", "/v1/exec?id=none", "", 400, "InvalidRequest"),
        ("GET", "/v1/shell?id=none&command=[]", "", 400, "InvalidRequest"),
        ("POST", "/v1/commands", "{\"command\":7}", 400, "InvalidRequest"),
        ("GET", "/v1/commands", "", 405, "MethodNotAllowed"),
        ("POST", "/v1/exec", "{\"command\":7}", 400, "InvalidRequest"),
        ("POST", "/v1/exec", "{", 400, "InvalidRequest"),
        ("POST", "/v1/signal?signal=65", "", 400, "InvalidRequest"),
        ("PUT", "/v1/write?path=/x&form=any", "", 400, "InvalidRequest"),
        ("PUT", "/v1/write?path=/x&form=file&mode=4096", "", 400, "InvalidRequest"),
        ("DELETE", "/v1/job", "", 405, "MethodNotAllowed"),
        ("GET", "/v2/job", "", 404, "NoSuchEndPoint"),
    ] {
        let (answered, problem) = raw(&client, method, target, body).await;
        assert_eq!((answered, problem["code"].as_str()), (status, Some(code)), "{method} {target}");
        assert!(!problem["message"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_a_guest_of_version_1_cannot_do_is_unsupported() {
    let Controlled { service, client, _folder } = controlled();
    // A guest without an announcement waits for something to do, and gets nothing of this.
    let poll = tokio::spawn(async move { guest(&service).get("/engine/v1/poll").await });
    let options = ExecOptions { workdir: Some("/".into()), ..ExecOptions::default() };
    let exec = Exec { command: vec!["true".into()], tty: false, options };
    let refusals = [
        client.list("/", true).await.err(),
        client.read("/", Form::Any).await.err(),
        client.stats(None).await.err(),
        client.signal(15).await.err(),
        client.dial("localhost", 80).await.err(),
        client.exec(exec.clone()).await.err(),
        client.exec_detached(exec).await.err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.expect("a refusal").code(), Some(Code::Unsupported));
    }
    assert!(!poll.is_finished());
}

#[tokio::test]
async fn the_log_is_followed_to_the_jobs_end_and_read_after_it() {
    let Controlled { service, client, _folder } = controlled();
    let log = client.log(LogFrom::Start, true).await.unwrap();
    assert_eq!(log.missed, 0);
    let mut body = log.body;
    guest(&service).post("/engine/v1/log", b"one\n").await;
    assert_eq!(body.chunk().await.unwrap().unwrap(), "one\n");
    // The command's end waits for the log request that is under way.
    let mut request = guest(&service).dial();
    let head = head("POST", "/engine/v1/log", &[("Content-Length", "4")]);
    request.write_all(&head).await.unwrap();
    request.write_all(b"tw").await.unwrap();
    assert_eq!(body.chunk().await.unwrap().unwrap(), "tw");
    guest(&service).request("PUT", "/engine/v1/success", &[], b"").await;
    request.write_all(b"o\n").await.unwrap();
    let mut rest = String::new();
    body.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "o\n");

    let mut tail = String::new();
    let log = client.log(LogFrom::Tail(1), true).await.unwrap();
    { log.body }.read_to_string(&mut tail).await.unwrap();
    assert_eq!(tail, "two\n");
}

#[tokio::test]
async fn what_is_no_longer_kept_is_counted() {
    let Controlled { service, client, _folder } = controlled();
    guest(&service).post("/engine/v1/log", b"0123456789abcdefXYZ").await;
    guest(&service).request("PUT", "/engine/v1/success", &[], b"").await;
    for (from, missed) in [(LogFrom::Start, 3), (LogFrom::Offset(1), 2)] {
        let mut kept = String::new();
        let log = client.log(from, true).await.unwrap();
        assert_eq!(log.missed, missed);
        { log.body }.read_to_string(&mut kept).await.unwrap();
        assert_eq!(kept, "3456789abcdefXYZ");
    }
}

#[tokio::test]
async fn waiting_ends_with_the_job() {
    let Controlled { service, client, _folder } = controlled();
    let (job, _) = tokio::join!(client.wait(), async {
        guest(&service).request("PUT", "/engine/v1/success", &[], b"").await
    });
    assert_eq!(job.unwrap().state, JobState::Succeeded);
}

#[tokio::test]
async fn the_document_tells_every_operation_and_its_errors() {
    let Controlled { client, _folder, .. } = controlled();
    let (status, document) = raw(&client, "GET", "/v1/openapi.json", "").await;
    assert_eq!((status, &document), (200, &control::openapi()));
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["description"].is_string() || operation["summary"].is_string());
            for (status, answer) in operation["responses"].as_object().unwrap() {
                if status.starts_with(['4', '5']) {
                    let schema = &answer["content"]["application/json"]["schema"]["$ref"];
                    assert_eq!(schema, "#/components/schemas/Problem", "{method} {path} {status}");
                }
            }
        }
    }
}

/// An exec of 2 MiB in arguments of 128 KiB, as text that needs escaping where it can.
fn large() -> Exec {
    let argument = "%\u{1}\"\u{e4}".repeat(128 * 1024 / 5);
    let mut command = vec!["echo".to_owned()];
    command.extend(std::iter::repeat_n(argument.clone(), 8));
    let env = (0..8).map(|number| (format!("V{number}"), argument.clone())).collect();
    Exec { command, tty: false, options: ExecOptions { env, ..ExecOptions::default() } }
}

#[tokio::test]
async fn two_mebibytes_of_command_and_environment_reach_the_guest() {
    use metaservice_protocol::endpoint::{AGENT_HEADER, FAILURE_HEADER};
    use metaservice_protocol::{Agent, Capabilities, Failure, FailureCode};

    let Controlled { service, client, _folder } = controlled();
    let agent = Agent { capabilities: Capabilities::all(), ..Agent::default() }.to_header();
    let refusing = async || {
        let announced = [(AGENT_HEADER, agent.as_str())];
        let action = guest(&service).request("GET", "/engine/v1/poll", &announced, b"").await;
        let action = action.json();
        let failure = Failure::new(FailureCode::Invalid, "seen").to_header();
        let headers = [(FAILURE_HEADER, failure.as_str())];
        guest(&service).request("POST", &reply_to(&action), &headers, b"").await;
        action
    };
    let exec = large();
    for detached in [false, true] {
        let asking = async {
            match detached {
                false => client.exec(exec.clone()).await.map(drop),
                true => client.exec_detached(exec.clone()).await.map(drop),
            }
        };
        let (refused, action) = tokio::join!(asking, refusing());
        assert_eq!(refused.unwrap_err().to_string(), "seen");
        assert_eq!(action["command"], serde_json::json!(exec.command));
        assert_eq!(action["options"]["env"], serde_json::json!(exec.options.env));
    }
    // The means of version 1 have the same way to the service.
    let (shell, action) = tokio::join!(client.exec_shell(&exec.command, true), async {
        let action = guest(&service).poll().await;
        let socket = guest(&service).dial_shell(&action).await;
        (action, socket)
    });
    shell.unwrap();
    assert_eq!(action.0["command"], serde_json::json!(exec.command));
    assert_eq!(action.0["tty"], true);

    let longer = Exec { command: vec!["\u{1}".repeat(3 << 20)], ..Exec::default() };
    for refused in [
        client.exec(longer.clone()).await.map(drop).unwrap_err(),
        client.exec_detached(longer).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(refused.code(), Some(Code::InvalidRequest));
        assert!(refused.to_string().contains("16777216 bytes"), "{refused}");
    }
}

#[tokio::test]
async fn a_large_exec_is_not_sent_to_an_agent_that_cannot_read_it() {
    use metaservice_protocol::endpoint::AGENT_HEADER;

    let Controlled { service, client, _folder } = controlled();
    let agent = r#"{"version":"0.1.0","capabilities":["exec"]}"#;
    let polling = service.clone();
    let poll = tokio::spawn(async move {
        let announced = [(AGENT_HEADER, agent)];
        guest(&polling).request("GET", "/engine/v1/poll", &announced, b"").await
    });
    let refused = client.exec(large()).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Some(Code::Unsupported), "{refused}");
    assert!(!poll.is_finished());
    // A client of before says all of it in the target, and is served as ever.
    let (asked, ()) =
        tokio::join!(raw(&client, "GET", "/v1/exec?exec=%7B%22command%22:[]%7D", ""), async {});
    assert_eq!((asked.0, &asked.1["code"]), (400, &"InvalidRequest".into()), "no upgrade");
}

#[tokio::test]
async fn a_job_of_an_older_version_gets_the_command_in_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("job.sock");
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
        let small = client.exec(Exec { command: vec!["a".into()], ..Exec::default() }).await;
        assert_eq!(small.map(drop).unwrap_err().code(), Some(Code::NoSuchEndPoint));
        let refused = client.exec(large()).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Some(Code::Unsupported));
        assert!(refused.to_string().contains("older metaservice"), "{refused}");
    };
    let ((), lines) = tokio::join!(asking, job);
    assert_eq!(lines[0], "POST /v1/commands HTTP/1.1");
    assert!(lines[1].starts_with("GET /v1/exec?exec=%7B%22command%22"), "{lines:?}");
    assert_eq!(lines[2], "GET /v1/commands HTTP/1.1");
}

#[tokio::test]
async fn an_exec_goes_through_in_the_second_dialect_with_its_large_window() {
    use metaservice_protocol::endpoint::{AGENT_HEADER, SHELL_PROTOCOL};
    use metaservice_protocol::{Agent, Capabilities};
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    const SENT: usize = 600_000;

    let Controlled { service, client, _folder } = controlled();
    let agent = Agent { capabilities: Capabilities::all(), ..Agent::default() }.to_header();
    let options = ExecOptions { workdir: Some("/tmp".into()), ..ExecOptions::default() };
    let exec = Exec { command: vec!["cat".into()], tty: false, options };
    let announced = [(AGENT_HEADER, agent.as_str())];
    let guest = async {
        let action = guest(&service).request("GET", "/engine/v1/poll", &announced, b"").await;
        let action = action.json();
        assert_eq!(action["type"], "exec");
        let url = format!("ws://169.254.169.254{}", reply_to(&action));
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", SHELL_PROTOCOL.parse().unwrap());
        tokio_tungstenite::client_async(request, guest(&service).dial()).await.unwrap().0
    };
    let (shell, mut socket) = tokio::join!(client.exec(exec), guest);
    let mut shell = shell.unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    let writing = async { stdin.write_all(&vec![7; SENT]).await.unwrap() };
    // Nothing is acknowledged: more than the first dialect's window comes all the same.
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

#[tokio::test]
async fn what_goes_wrong_in_the_midst_of_a_file_is_told_behind_it() {
    use metaservice_protocol::endpoint::{AGENT_HEADER, FILE_HEADER, TRANSFER_TYPE};
    use metaservice_protocol::transfer::Encoder;
    use metaservice_protocol::{Agent, Capabilities, Failure, FailureCode};

    let Controlled { service, client, _folder } = controlled();
    let agent = Agent { capabilities: Capabilities::all(), ..Agent::default() }.to_header();
    let failing = async || {
        let announced = [(AGENT_HEADER, agent.as_str())];
        let action = guest(&service).request("GET", "/engine/v1/poll", &announced, b"").await;
        let target = reply_to(&action.json());
        let head = r#"{"form":"archive","mode":493,"mtimeNs":0}"#;
        let failure = Failure::new(FailureCode::Other, "/d/f: Input/output error \u{e4}");
        let some = Encoder::new().data(bytes::Bytes::from_static(b"some")).concat();
        let body = [&some[..], &Encoder::failed(&failure)].concat();
        let headers = [(FILE_HEADER, head), ("Content-Type", TRANSFER_TYPE)];
        guest(&service).request("POST", &target, &headers, &body).await
    };
    let (reading, _) = tokio::join!(client.read("/d", Form::Any), failing());
    let (_, mut body) = reading.unwrap();
    let mut come = Vec::new();
    let error = body.read_to_end(&mut come).await.unwrap_err();
    assert_eq!(
        (come.as_slice(), error.to_string().as_str()),
        (&b"some"[..], "/d/f: Input/output error \u{e4}")
    );
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ClientError>());
    assert_eq!(inner.and_then(ClientError::code), Some(Code::Refused));

    // Who takes no trailers finds a body without an end.
    let raw = async {
        let mut stream = tokio::net::UnixStream::connect(client.socket()).await.unwrap();
        stream
            .write_all(b"GET /v1/read?path=/d HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    let (answer, _) = tokio::join!(raw, failing());
    assert!(answer.ends_with("4\r\nsome\r\n"), "{answer}");
}

#[tokio::test]
async fn a_reason_that_cannot_be_read_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("job.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let job = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 1024];
        assert!(stream.read(&mut asked).await.unwrap() > 0);
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Metaservice-Problem\r\n\
                      Metaservice-File: {\"form\":\"file\",\"mode\":420,\"mtimeNs\":0}\r\n\r\n\
                      4\r\nsome\r\n0\r\nMetaservice-Problem: {\"of\":\"another version\"}\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
    };
    let client = Client::new(socket);
    let (reading, ()) = tokio::join!(client.read("/f", Form::File), job);
    let mut come = Vec::new();
    let error = reading.unwrap().1.read_to_end(&mut come).await.unwrap_err();
    assert_eq!(come, b"some");
    assert!(error.to_string().contains("broke"), "{error}");
}

#[tokio::test]
async fn nothing_is_said_in_a_version_of_http_that_has_no_ends() {
    let Controlled { service: _service, client, _folder } = controlled();
    let mut stream = tokio::net::UnixStream::connect(client.socket()).await.unwrap();
    stream.write_all(b"GET /v1/read?path=/d HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 400 ") && answer.contains("HTTP/1.1"), "{answer}");
}

#[tokio::test]
async fn an_answer_leaves_its_connection_in_order_or_says_that_it_is_the_last() {
    let Controlled { service: _service, client, _folder } = controlled();
    let refused = "PUT /v1/write?form=any&path= HTTP/1.1\r\nHost: a\r\n";
    let mut stream = tokio::net::UnixStream::connect(client.socket()).await.unwrap();
    stream.write_all(format!("{refused}Content-Length: 2\r\n\r\n").as_bytes()).await.unwrap();
    // Time to answer too early.
    client.job().await.unwrap();
    stream.write_all(b"[]").await.unwrap();
    let mut answer = [0; 4096];
    let count = stream.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 400 "));
    let next = "GET /v1/job HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(next.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(Answer::parse(&answer).status, 200);

    // Also where nothing is refused, and nobody reads a body all the same.
    let asked = "GET /v1/job HTTP/1.1\r\nHost: a\r\n";
    for (asked, length, status) in [
        (refused, "Content-Length: 1000000", "400"),
        (refused, "Transfer-Encoding: chunked", "400"),
        (asked, "Transfer-Encoding: chunked", "200"),
    ] {
        let mut stream = tokio::net::UnixStream::connect(client.socket()).await.unwrap();
        stream.write_all(format!("{asked}{length}\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
}

/// What waits for a job ends when the job's process is stopped, and not before.
#[tokio::test(start_paused = true)]
async fn a_job_that_does_not_answer_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("job.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let client = Client::new(&socket);
    assert!(matches!(client.wait().await, Err(ClientError::Silent(_))));
    assert!(matches!(client.kill().await, Err(ClientError::Silent(_))));
    assert!(matches!(client.exec(Exec::default()).await, Err(ClientError::Silent(_))));
    drop(listener);

    // It stops in the midst of an answer.
    std::fs::remove_file(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let answering = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
        stream.write_all(head).await.unwrap();
        stream
    };
    let (log, _stream) = tokio::join!(client.log(LogFrom::Start, true), answering);
    let mut body = log.unwrap().body;
    assert_eq!(body.chunk().await.unwrap().unwrap(), "half");
    let error = body.chunk().await.unwrap_err().downcast::<ClientError>().unwrap();
    assert!(matches!(error, ClientError::Silent(_)), "{error}");
}

/// A client has all of its answer for as long as it takes some of it, though the job has ended.
#[tokio::test(start_paused = true)]
async fn a_slow_client_has_its_answer_and_one_that_takes_nothing_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("job.sock");
    let service = MetaService::builder(["true"]).keep_log(8 << 20).start().unwrap();
    let serving = control::serve("job", service.clone(), UnixListener::bind(&socket).unwrap());
    let serving = tokio::spawn(serving);
    let client = Client::new(&socket);
    let log = vec![b'x'; 4 << 20];
    guest(&service).request("POST", "/engine/v1/log", &[], &log).await;
    let mut slow = client.log(LogFrom::Start, true).await.unwrap().body;
    let stalled = client.log(LogFrom::Start, true).await.unwrap().body;
    service.shutdown().await.unwrap();
    let mut came = 0;
    while let Some(bytes) = slow.chunk().await.unwrap() {
        came += bytes.len();
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    }
    assert_eq!(came, log.len());
    serving.await.unwrap();
    drop(stalled);
}

#[tokio::test]
async fn what_a_job_runs_within_and_on_is_told_as_its_server_says() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("job.sock");
    let service = MetaService::builder(["sh", "-c", "internal"]).env("STEPS", "x");
    let service = service.start().unwrap();
    let machine = control::MachineDescription::default();
    let description = control::Description {
        name: "job".into(),
        command: Some(vec!["shown".into()]),
        machine: machine.clone(),
    };
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(control::serve(description, service.clone(), listener));
    let client = Client::new(&socket);
    let job = client.job().await.unwrap();
    assert_eq!((job.command, job.env, job.machine), (vec!["shown".into()], vec![], ().into()));
    machine.set(serde_json::json!({ "cpus": 2 }));
    assert_eq!(client.job().await.unwrap().machine["cpus"], 2);
    service.shutdown().await.unwrap();
}
