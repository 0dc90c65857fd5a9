//! A guest of version 1, from the protocol page: one request a connection, by hand.
#![allow(dead_code)] // Each test binary uses its part.

use std::collections::HashMap;

use metaservice::MetaService;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;

/// An answer of the service's.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// The status and the error code of a refusal.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let json = self.json();
        assert!(!json["message"].as_str().expect("a message").is_empty());
        assert_eq!(self.headers["content-type"], "application/json");
        (self.status, json["code"].as_str().expect("a code").to_owned())
    }
}

/// Opens a connection to the service with buffers of `size` bytes, without a network: time can be paused.
pub(crate) fn dial_sized(service: &MetaService, size: usize) -> DuplexStream {
    let (near, far) = tokio::io::duplex(size);
    let service = service.clone();
    tokio::spawn(async move {
        let _ = service.serve_connection(far).await;
    });
    near
}

pub(crate) fn dial(service: &MetaService) -> DuplexStream {
    dial_sized(service, 64 * 1024)
}

pub(crate) fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: 169.254.169.254\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    (head + "\r\n").into_bytes()
}

/// Sends one request whole and reads its answer to the connection's end.
pub(crate) async fn request(
    service: &MetaService,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let length = body.len().to_string();
    let mut all = vec![("Connection", "close"), ("Content-Length", length.as_str())];
    all.extend(headers);
    let (mut reader, mut writer) = tokio::io::split(dial(service));
    let sent = [&head(method, target, &all), body].concat();
    // A refusal may come before the body is through: that is no error of the guest's.
    let writing = async {
        let _ = writer.write_all(&sent).await;
    };
    let mut answer = Vec::new();
    let reading = async {
        let _ = reader.read_to_end(&mut answer).await;
    };
    tokio::join!(writing, reading);
    parse(&answer)
}

/// Reads one answer, and leaves the connection open.
pub(crate) async fn read_answer(stream: &mut DuplexStream) -> Answer {
    let mut answer = Vec::new();
    loop {
        answer.push(stream.read_u8().await.expect("a whole answer"));
        if answer.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let mut answer = parse(&answer);
    let length = answer.headers["content-length"].parse().expect("a number");
    answer.body.resize(length, 0);
    stream.read_exact(&mut answer.body).await.expect("a whole body");
    answer
}

/// Claims the job by a word.
pub(crate) async fn claim(service: &MetaService, nonce: &str) -> Answer {
    request(service, "PUT", "/engine/v1/session", &[("Metaservice-Claim", nonce)], b"").await
}

pub(crate) fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head");
    let head = std::str::from_utf8(&answer[..end]).expect("a head in ASCII");
    let mut lines = head.split("\r\n");
    let status = lines.next().expect("a status line");
    let status = status.split(' ').nth(1).expect("a status").parse().expect("a number");
    let header = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned()));
    Answer { status, headers: lines.filter_map(header).collect(), body: answer[end + 4..].into() }
}

pub(crate) async fn get(service: &MetaService, target: &str) -> Answer {
    request(service, "GET", target, &[], b"").await
}

pub(crate) async fn post(service: &MetaService, target: &str, body: &[u8]) -> Answer {
    request(service, "POST", target, &[], body).await
}

/// Takes the next action.
pub(crate) async fn poll(service: &MetaService) -> Value {
    let answer = get(service, "/engine/v1/poll").await;
    assert_eq!(answer.status, 200);
    let action = answer.json();
    for field in ["id", "type", "path", "command", "tty"] {
        assert!(action.get(field).is_some(), "{field} is missing");
    }
    action
}

/// The target at which `action` is replied to.
pub(crate) fn reply_to(action: &Value) -> String {
    format!("/engine/v1/reply?id={}", action["id"].as_str().expect("an id"))
}

/// Dials the shell that `action` asks for.
pub(crate) async fn dial_shell(service: &MetaService, action: &Value) -> Socket {
    let url = format!("ws://169.254.169.254{}", reply_to(action));
    tokio_tungstenite::client_async(url, dial(service)).await.expect("a handshake").0
}

/// What an agent that can do everything says of itself.
pub(crate) const AGENT: &str = r#"{"version":"9","os":"linux","arch":"x86_64","kernel":"6.1","capabilities":["exec","dial","read","write","list","stats","signal","terminal","to-come"]}"#;

pub(crate) type Socket = WebSocketStream<DuplexStream>;

/// Takes the next action as an agent that can do everything.
pub(crate) async fn announce(service: &MetaService) -> Value {
    let announced = [("Metaservice-Agent", AGENT)];
    let answer = request(service, "GET", "/engine/v1/poll", &announced, b"").await;
    assert_eq!(answer.status, 200);
    assert!(answer.headers.contains_key("metaservice-service"));
    answer.json()
}

/// Dials the stream that `action` asks for, in the second dialect.
pub(crate) async fn dial_dialect(service: &MetaService, action: &Value) -> Socket {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let url = format!("ws://169.254.169.254{}", reply_to(action));
    let mut request = url.into_client_request().expect("a request");
    let offer = http::HeaderValue::from_static("shell.2.metaservice, shell.1.metaservice");
    request.headers_mut().insert("sec-websocket-protocol", offer);
    let (socket, response) =
        tokio_tungstenite::client_async(request, dial(service)).await.expect("a handshake");
    assert_eq!(response.headers()["sec-websocket-protocol"], "shell.2.metaservice");
    socket
}

/// The next binary message.
pub(crate) async fn next(socket: &mut Socket) -> Vec<u8> {
    use futures_util::StreamExt;
    use tokio_tungstenite::tungstenite::Message;
    loop {
        match socket.next().await.expect("an open websocket").expect("a message") {
            Message::Binary(message) => return message.into(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Begins something with the handle, beside the test.
pub(crate) fn start<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    service: &MetaService,
    action: impl FnOnce(MetaService) -> F,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(action(service.clone()))
}

/// A service without a log, for tests that need none.
pub(crate) fn service() -> MetaService {
    MetaService::builder(["true"]).start().expect("a service")
}
