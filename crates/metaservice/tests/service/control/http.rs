//! The HTTP of the control API: errors, connections, slow clients.

use futures_util::TryStreamExt;
use metaservice::control::{self, Client, ClientError};
use metaservice::{LogFrom, MetaService};
use metaservice_testing::guest::Answer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::{Controlled, controlled, raw};
use crate::guest;

#[tokio::test]
async fn a_socket_without_a_process_is_unreachable() {
    let client = Client::new("/nowhere/job.sock");
    assert!(matches!(client.job().await, Err(ClientError::Unreachable(..))));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_json() {
    let Controlled { client, _directory, .. } = controlled();
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
async fn the_document_tells_every_operation_and_its_errors() {
    let Controlled { client, _directory, .. } = controlled();
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

#[tokio::test]
async fn nothing_is_said_in_a_version_of_http_that_has_no_ends() {
    let Controlled { service: _service, client, _directory } = controlled();
    let mut stream = tokio::net::UnixStream::connect(client.socket()).await.unwrap();
    stream.write_all(b"GET /v1/read?path=/d HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 400 ") && answer.contains("HTTP/1.1"), "{answer}");
}

#[tokio::test]
async fn an_answer_leaves_its_connection_in_order_or_says_that_it_is_the_last() {
    let Controlled { service: _service, client, _directory } = controlled();
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

    // The same for a request without an error whose body is not read.
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
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("job.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let client = Client::new(&socket);
    assert!(matches!(client.wait().await, Err(ClientError::Silent(_))));
    assert!(matches!(client.kill().await, Err(ClientError::Silent(_))));
    assert!(matches!(client.exec([""; 0]).spawn().await, Err(ClientError::Silent(_))));
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
    assert_eq!(body.try_next().await.unwrap().unwrap(), "half");
    let error = body.try_next().await.unwrap_err().downcast::<ClientError>().unwrap();
    assert!(matches!(error, ClientError::Silent(_)), "{error}");
}

/// A client has all of its answer for as long as it takes some of it, though the job has ended.
#[tokio::test(start_paused = true)]
async fn a_slow_client_has_its_answer_and_one_that_takes_nothing_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("job.sock");
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
    while let Some(bytes) = slow.try_next().await.unwrap() {
        came += bytes.len();
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    }
    assert_eq!(came, log.len());
    serving.await.unwrap();
    drop(stalled);
}
