//! The control API over a real unix socket, against a guest by hand.
#![allow(clippy::unwrap_used)]

mod guest;

use futures_util::{SinkExt, StreamExt};
use metaservice::MetaService;
use metaservice::control::{self, Client, ClientError, Code, JobState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio_tungstenite::tungstenite::Message;

struct Controlled {
    service: MetaService,
    client: Client,
    _folder: tempfile::TempDir,
}

fn controlled() -> Controlled {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("job.sock");
    let service = MetaService::builder(["make", "test"]).start().unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(control::serve("job", service.clone(), listener));
    Controlled { service, client: Client::new(socket), _folder: folder }
}

#[tokio::test]
async fn a_job_is_told_from_waiting_to_its_end() {
    let Controlled { service, client, _folder } = controlled();
    let job = client.job().await.unwrap();
    assert_eq!((job.name.as_str(), job.state), ("job", JobState::Waiting));
    assert_eq!((job.command, job.pid), (vec!["make".into(), "test".into()], std::process::id()));
    guest::get(&service, "/engine/v1/execute").await;
    assert_eq!(client.job().await.unwrap().state, JobState::Running);
    let header = [("Metaservice-Result", r#"{"reason":"exited","exitCode":2}"#)];
    guest::request(&service, "PUT", "/engine/v1/failed", &header, b"").await;
    let job = client.job().await.unwrap();
    assert_eq!((job.state, job.status), (JobState::Failed, Some(2)));
    service.shutdown().await.unwrap();
}

#[tokio::test]
async fn files_and_folders_come_through() {
    let Controlled { service, client, _folder } = controlled();
    let replying = async |body: &[u8], headers: &[(&str, &str)]| {
        let action = guest::poll(&service).await;
        assert_eq!(action["path"], "/a b&c");
        let target = guest::reply_to(&action);
        let answer = guest::request(&service, "POST", &target, headers, body).await;
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
        let action = guest::poll(&service).await;
        assert_eq!(action["command"], serde_json::json!(["cat", "a b"]));
        assert_eq!(action["tty"], true);
        guest::dial_shell(&service, &action).await
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

#[tokio::test]
async fn kill_is_told_when_it_is_done() {
    let Controlled { service, client, _folder } = controlled();
    let (killed, ()) = tokio::join!(client.kill(), async {
        let action = guest::poll(&service).await;
        assert_eq!(action["type"], "kill-process");
        guest::post(&service, &guest::reply_to(&action), b"").await;
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
