//! The job over the control API: its state, log and files.

use futures_util::TryStreamExt;
use metaservice::control::{self, Client, ClientError, Code, JobState};
use metaservice::{Form, LogFrom, LogOutput, MetaService};
use metaservice_testing::guest::{head, reply_to};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::{Controlled, controlled};
use crate::guest;

#[tokio::test]
async fn a_job_is_told_from_waiting_to_its_end() {
    let Controlled { service, client, _directory } = controlled();
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
async fn files_and_directories_come_through() {
    let Controlled { service, client, _directory } = controlled();
    let replying = async |body: &[u8], headers: &[(&str, &str)]| {
        let action = guest(&service).poll().await;
        assert_eq!(action["path"], "/a b&c");
        let target = reply_to(&action);
        let answer = guest(&service).request("POST", &target, headers, body).await;
        assert_eq!(answer.status, 200);
    };
    let json = [("Content-Type", "application/json")];
    let list = br#"{"files":["/a b&c/x"],"notFound":false}"#;
    let (files, ()) = tokio::join!(client.list("/a b&c").files(), replying(list, &json));
    assert_eq!(files.unwrap(), ["/a b&c/x"]);

    let content = vec![7; 1_000_000];
    let mut fetched = Vec::new();
    let (file, ()) = tokio::join!(client.read("/a b&c").open(), replying(&content, &[]));
    let mut file = file.unwrap();
    assert_eq!(file.head, None, "version 1 tells no attributes");
    file.body.read_to_end(&mut fetched).await.unwrap();
    assert!(fetched == content);

    let missing = [("X-Taskcluster-Worker-Error", "file-not-found")];
    let listed = br#"{"files":[],"notFound":true}"#;
    let (error, ()) = tokio::join!(client.read("/a b&c").open(), async {
        replying(b"", &missing).await;
        replying(listed, &json).await;
    });
    assert!(matches!(error, Err(ClientError::Refused { code: Code::NotFound, .. })));
}

#[tokio::test]
async fn kill_is_told_when_it_is_done() {
    let Controlled { service, client, _directory } = controlled();
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
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("job.sock");
    tokio::spawn(control::serve("job", service, UnixListener::bind(&socket).unwrap()));
    let ClientError::Refused { code, message } = Client::new(socket).kill().await.unwrap_err()
    else {
        panic!("an answer of the job's")
    };
    assert_eq!(code, Code::TimedOut);
    assert_eq!(message, "the guest does not answer: its agent did not ask for the action in time");
}

#[tokio::test]
async fn what_a_guest_of_version_1_cannot_do_is_unsupported() {
    let Controlled { service, client, _directory } = controlled();
    // A guest without an announcement waits for something to do, and gets nothing of this.
    let poll = tokio::spawn(async move { guest(&service).get("/engine/v1/poll").await });
    let exec = client.exec(["true"]).workdir("/");
    let refusals = [
        client.list("/").recursive(true).entries().await.err(),
        client.read("/").form(Form::Archive).open().await.err(),
        client.stats(None).await.err(),
        client.signal(15).await.err(),
        client.dial("localhost", 80).await.err(),
        exec.clone().spawn().await.err(),
        exec.spawn_detached().await.err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.expect("a refusal").code(), Some(Code::Unsupported));
    }
    assert!(!poll.is_finished());
}

#[tokio::test]
async fn the_log_is_followed_to_the_jobs_end_and_read_after_it() {
    let Controlled { service, client, _directory } = controlled();
    let log = client.log(LogFrom::Start, true).await.unwrap();
    assert_eq!(log.missed, 0);
    let mut body = log.body;
    guest(&service).post("/engine/v1/log", b"one\n").await;
    assert_eq!(body.try_next().await.unwrap().unwrap(), "one\n");
    // The command's end waits for the log request that is under way.
    let mut request = guest(&service).dial();
    let head = head("POST", "/engine/v1/log", &[("Content-Length", "4")]);
    request.write_all(&head).await.unwrap();
    request.write_all(b"tw").await.unwrap();
    assert_eq!(body.try_next().await.unwrap().unwrap(), "tw");
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
async fn the_log_in_segments_has_outputs_and_times() {
    let Controlled { service, client, _directory } = controlled();
    let mut log = client.log_segments(LogFrom::Start, true).await.unwrap();
    assert_eq!(log.missed, 0);
    guest(&service).post("/engine/v1/log", b"out\n").await;
    let first = log.next().await.unwrap().unwrap();
    assert_eq!((first.output, &first.bytes[..]), (LogOutput::Stdout, &b"out\n"[..]));
    let place = [("Metaservice-Log", r#"{"stream":"e","offset":0,"output":"stderr"}"#)];
    guest(&service).request("POST", "/engine/v1/log", &place, b"err\n").await;
    let second = log.next().await.unwrap().unwrap();
    assert_eq!((second.output, &second.bytes[..]), (LogOutput::Stderr, &b"err\n"[..]));
    assert!(first.time.unwrap() <= second.time.unwrap());
    assert!(second.time.unwrap().elapsed().unwrap().as_secs() < 60);
    guest(&service).request("PUT", "/engine/v1/success", &[], b"").await;
    assert_eq!(log.next().await.unwrap(), None);
    // A client that does not ask for frames gets the bytes.
    let mut merged = String::new();
    { client.log(LogFrom::Start, true).await.unwrap().body }
        .read_to_string(&mut merged)
        .await
        .unwrap();
    assert_eq!(merged, "out\nerr\n");
}

#[tokio::test]
async fn what_is_no_longer_kept_is_counted() {
    let Controlled { service, client, _directory } = controlled();
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
    let Controlled { service, client, _directory } = controlled();
    let (job, _) = tokio::join!(client.wait(), async {
        guest(&service).request("PUT", "/engine/v1/success", &[], b"").await
    });
    assert_eq!(job.unwrap().state, JobState::Succeeded);
}

#[tokio::test]
async fn what_goes_wrong_in_the_midst_of_a_file_is_told_behind_it() {
    use metaservice_protocol::header::{AGENT_HEADER, FILE_HEADER, TRANSFER_TYPE};
    use metaservice_protocol::transfer::Encoder;
    use metaservice_protocol::{AgentInfo, Capabilities, Failure, FailureCode};

    let Controlled { service, client, _directory } = controlled();
    let agent = AgentInfo { capabilities: Capabilities::all(), ..AgentInfo::default() }.to_header();
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
    let (reading, _) = tokio::join!(client.read("/d").form(Form::Any).open(), failing());
    let mut body = reading.unwrap().body;
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
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("job.sock");
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
    let (reading, ()) = tokio::join!(client.read("/f").open(), job);
    let mut come = Vec::new();
    let error = reading.unwrap().body.read_to_end(&mut come).await.unwrap_err();
    assert_eq!(come, b"some");
    assert!(error.to_string().contains("broke"), "{error}");
}

#[tokio::test]
async fn what_a_job_runs_within_and_on_is_told_as_its_server_says() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("job.sock");
    let service = MetaService::builder(["sh", "-c", "internal"]).env("STEPS", "x");
    let service = service.start().unwrap();
    let machine = control::MachineDescription::default();
    let mut description = control::Description::from("job");
    description.command = Some(vec!["shown".into()]);
    description.machine = machine.clone();
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(control::serve(description, service.clone(), listener));
    let client = Client::new(&socket);
    let job = client.job().await.unwrap();
    assert_eq!((job.command, job.env, job.machine), (vec!["shown".into()], vec![], ().into()));
    machine.set(serde_json::json!({ "cpus": 2 }));
    assert_eq!(client.job().await.unwrap().machine["cpus"], 2);
    service.shutdown().await.unwrap();
}
