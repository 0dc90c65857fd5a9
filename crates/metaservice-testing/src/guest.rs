//! A guest that sends each request by hand, as the protocol page describes it.
//!
//! All it needs of the service is a function that accepts connections. Connections are in memory,
//! so a test can pause the clock. Each request has a connection of its own, except if a test itself
//! writes to a connection from [`Guest::dial`].
//!
//! ```
//! use metaservice_testing::guest::Guest;
//!
//! # async fn example(accept: impl Fn(tokio::io::DuplexStream) + Send + Sync + 'static) {
//! let guest = Guest::new(accept);
//! let answer = guest.get("/engine/v1/ping").await;
//! assert_eq!(answer.status, 200);
//! # }
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// The `Metaservice-Agent` header of an agent that has every capability, and one from the future.
pub const AGENT: &str = r#"{"version":"9","os":"linux","arch":"x86_64","kernel":"6.1","capabilities":["exec","dial","read","write","list","stats","signal","terminal","to-come"]}"#;

/// How many bytes a connection holds in each direction.
const BUFFER: usize = 64 * 1024;

/// A websocket to the service.
pub type Socket = WebSocketStream<DuplexStream>;

/// A guest of one service.
#[derive(Clone)]
pub struct Guest {
    accept: Arc<dyn Fn(DuplexStream) + Send + Sync>,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").finish_non_exhaustive()
    }
}

impl Guest {
    /// Returns a guest whose connections go to `accept`, which serves each one in the background.
    pub fn new(accept: impl Fn(DuplexStream) + Send + Sync + 'static) -> Self {
        Self { accept: Arc::new(accept) }
    }

    /// Opens a connection.
    pub fn dial(&self) -> DuplexStream {
        self.dial_sized(BUFFER)
    }

    /// Opens a connection that holds `size` bytes in each direction.
    pub fn dial_sized(&self, size: usize) -> DuplexStream {
        let (near, far) = tokio::io::duplex(size);
        (self.accept)(far);
        near
    }

    /// Sends one request and reads the answer to the end of the connection.
    pub async fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let length = body.len().to_string();
        let mut all = vec![("Connection", "close"), ("Content-Length", length.as_str())];
        all.extend(headers);
        let (mut reader, mut writer) = tokio::io::split(self.dial());
        let request = [&head(method, target, &all), body].concat();
        // The service may answer an error before it has read the body, and then close.
        let writing = async {
            let _ = writer.write_all(&request).await;
        };
        let mut answer = Vec::new();
        let reading = async {
            let _ = reader.read_to_end(&mut answer).await;
        };
        tokio::join!(writing, reading);
        Answer::parse(&answer)
    }

    /// Sends a `GET` request.
    pub async fn get(&self, target: &str) -> Answer {
        self.request("GET", target, &[], b"").await
    }

    /// Sends a `POST` request.
    pub async fn post(&self, target: &str, body: &[u8]) -> Answer {
        self.request("POST", target, &[], body).await
    }

    /// Claims the job with `nonce`.
    pub async fn claim(&self, nonce: &str) -> Answer {
        let claim = [("Metaservice-Claim", nonce)];
        self.request("PUT", "/engine/v1/session", &claim, b"").await
    }

    /// Takes the next action, as a version 1 agent. Fails if a field is missing.
    pub async fn poll(&self) -> Value {
        let answer = self.get("/engine/v1/poll").await;
        assert_eq!(answer.status, 200);
        let action = answer.json();
        for field in ["id", "type", "path", "command", "tty"] {
            assert!(action.get(field).is_some(), "{field} is missing");
        }
        action
    }

    /// Takes the next action, as an agent that announces every capability.
    pub async fn poll_as_agent(&self) -> Value {
        let announced = [("Metaservice-Agent", AGENT)];
        let answer = self.request("GET", "/engine/v1/poll", &announced, b"").await;
        assert_eq!(answer.status, 200);
        assert!(answer.headers.contains_key("metaservice-service"));
        answer.json()
    }

    /// Opens the websocket that `action` asks for, with stream protocol v1.
    pub async fn dial_shell(&self, action: &Value) -> Socket {
        let url = format!("ws://169.254.169.254{}", reply_to(action));
        tokio_tungstenite::client_async(url, self.dial()).await.expect("a handshake").0
    }

    /// Opens the websocket that `action` asks for, with stream protocol v2.
    pub async fn dial_shell_v2(&self, action: &Value) -> Socket {
        let url = format!("ws://169.254.169.254{}", reply_to(action));
        let mut request = url.into_client_request().expect("a request");
        let offer = http::HeaderValue::from_static("shell.2.metaservice, shell.1.metaservice");
        request.headers_mut().insert("sec-websocket-protocol", offer);
        let (socket, response) =
            tokio_tungstenite::client_async(request, self.dial()).await.expect("a handshake");
        assert_eq!(response.headers()["sec-websocket-protocol"], "shell.2.metaservice");
        socket
    }
}

/// An answer of the service.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers. The names are in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Parses an answer that has arrived completely.
    pub fn parse(answer: &[u8]) -> Self {
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&answer[..end]).expect("a head in ASCII");
        let mut lines = head.split("\r\n");
        let status = lines.next().expect("a status line");
        let status = status.split(' ').nth(1).expect("a status").parse().expect("a number");
        let header =
            |line: &str| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned()));
        let headers = lines.filter_map(header).collect();
        Self { status, headers, body: answer[end + 4..].into() }
    }

    /// Reads one answer and leaves the connection open.
    pub async fn read(stream: &mut DuplexStream) -> Self {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.expect("a whole answer"));
        }
        let mut answer = Self::parse(&answer);
        let length = answer.headers["content-length"].parse().expect("a number");
        answer.body.resize(length, 0);
        stream.read_exact(&mut answer.body).await.expect("a whole body");
        answer
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// Returns the status and the error code. Fails if the body is no error of the protocol.
    pub fn error(&self) -> (u16, String) {
        let json = self.json();
        assert!(!json["message"].as_str().expect("a message").is_empty());
        assert_eq!(self.headers["content-type"], "application/json");
        (self.status, json["code"].as_str().expect("a code").to_owned())
    }
}

/// Returns the head of a request, with a `Host` header.
pub fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: 169.254.169.254\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    (head + "\r\n").into_bytes()
}

/// Returns the target of the reply to `action`.
pub fn reply_to(action: &Value) -> String {
    format!("/engine/v1/reply?id={}", action["id"].as_str().expect("an id"))
}

/// Returns the next binary message.
pub async fn next(socket: &mut Socket) -> Vec<u8> {
    loop {
        match socket.next().await.expect("an open websocket").expect("a message") {
            Message::Binary(message) => return message.into(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}
