//! The control API over a Unix socket, with a guest that sends each request by hand.

use metaservice::MetaService;
use metaservice::control::{self, Client};
use metaservice_testing::guest::Answer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

mod exec;
mod http;
mod job;
mod jobs;
mod network;

struct Controlled {
    service: MetaService,
    client: Client,
    _directory: tempfile::TempDir,
}

fn controlled() -> Controlled {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("job.sock");
    let service = MetaService::builder(["make", "test"]).env("SECRET", "hunter2").keep_log(16);
    let service = service.start().unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(control::serve("job", service.clone(), listener));
    Controlled { service, client: Client::new(socket), _directory: directory }
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
