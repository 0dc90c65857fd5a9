//! A model of the agent. It may be dropped at any moment; another one continues with its state.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use metaservice_protocol::shell::{Event, Role, ShellSession, Stream};
use metaservice_protocol::{ActionId, LogOutput, LogPlace};
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::World;

/// What survives an agent.
#[derive(Default)]
pub(crate) struct Kept {
    secret: Option<String>,
    /// How much of each output.
    confirmed: [usize; 2],
    pub(crate) reported: bool,
}

pub(crate) struct Agent {
    world: Arc<World>,
    kept: Arc<Mutex<Kept>>,
    secret: String,
}

/// Somebody who knows the secret reports the opposite; the status of the answer.
pub(crate) async fn contradict(world: &Arc<World>, kept: &Arc<Mutex<Kept>>) -> u16 {
    let secret = kept.lock().unwrap().secret.clone().unwrap();
    let agent = Agent { world: Arc::clone(world), kept: Arc::clone(kept), secret };
    let word = if world.success { "failed" } else { "success" };
    loop {
        if let Some((status, _)) = agent.ask(&format!("PUT /engine/v1/{word}"), "", b"").await {
            return status;
        }
        world.pause().await;
    }
}

/// Never ends.
pub(crate) async fn run(world: Arc<World>, kept: Arc<Mutex<Kept>>) {
    let secret = claim(&world, &kept).await;
    let agent = Arc::new(Agent { world, kept, secret });
    while agent.ask("GET /engine/v1/execute", "", b"").await.is_none_or(|answer| answer.0 != 200) {
        agent.world.pause().await;
    }
    tokio::join!(agent.job(), agent.polls());
}

async fn claim(world: &Arc<World>, kept: &Mutex<Kept>) -> String {
    loop {
        if let Some(secret) = kept.lock().unwrap().secret.clone() {
            return secret;
        }
        let head = "PUT /engine/v1/session HTTP/1.1\r\nMetaservice-Claim: word\r\n";
        if let Some((200, body)) = exchange(world, head, b"").await {
            let grant: serde_json::Value = serde_json::from_slice(&body).unwrap();
            kept.lock().unwrap().secret = Some(grant["secret"].as_str().unwrap().to_owned());
        }
        world.pause().await;
    }
}

impl Agent {
    async fn ask(&self, request: &str, headers: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        let secret = &self.secret;
        let head = format!("{request} HTTP/1.1\r\nMetaservice-Session: {secret}\r\n{headers}");
        exchange(&self.world, &head, body).await
    }

    /// Sends the log in numbered requests, then the result.
    async fn job(&self) {
        let world = &self.world;
        loop {
            let confirmed = self.kept.lock().unwrap().confirmed;
            let written = world.written();
            if confirmed == [0, 1].map(|output| world.logs[output].len()) {
                break;
            }
            let first = world.draw(|random| random.random_range(0..2));
            let pending = [first, 1 - first].into_iter().find(|n| confirmed[*n] < written[*n]);
            if let Some(number) = pending {
                let (confirmed, written) = (confirmed[number], written[number]);
                let most = world.draw(|random| random.random_range(1..5000));
                let end = written.min(confirmed + most);
                let stream = ActionId::parse(["s", "s-stderr"][number]).unwrap();
                let output = LogOutput::ALL[number];
                let place = LogPlace { stream, offset: confirmed as u64, output }.to_header();
                let headers = format!("Metaservice-Log: {place}\r\n");
                let bytes = &world.logs[number][confirmed..end];
                match self.ask("POST /engine/v1/log", &headers, bytes).await {
                    Some((200, _)) => {
                        let mut kept = self.kept.lock().unwrap();
                        kept.confirmed[number] = kept.confirmed[number].max(end);
                        continue;
                    }
                    Some((status, body)) => panic!("{status} {}", String::from_utf8_lossy(&body)),
                    None => {}
                }
            }
            world.pause().await;
        }
        let word = if world.success { "success" } else { "failed" };
        loop {
            match self.ask(&format!("PUT /engine/v1/{word}"), "", b"").await {
                Some((200, _)) => break,
                Some((status, _)) => panic!("the result is refused with {status}"),
                None => world.pause().await,
            }
        }
        world.note("reported", 0);
        self.kept.lock().unwrap().reported = true;
    }

    async fn polls(self: &Arc<Self>) {
        let mut actions = JoinSet::new();
        loop {
            let Some((200, body)) = self.ask("GET /engine/v1/poll", "", b"").await else {
                self.world.pause().await;
                continue;
            };
            let action: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let agent = Arc::clone(self);
            actions.spawn(async move { agent.answer(&action).await });
        }
    }

    async fn answer(&self, action: &serde_json::Value) {
        let id = action["id"].as_str().unwrap();
        let path = action["path"].as_str().unwrap();
        let (kind, reply) = match action["type"].as_str().unwrap() {
            "none" => return,
            "list-folder" => ("application/json", listing(path)),
            "get-artifact" => ("application/octet-stream", content(path)),
            "exec-shell" => {
                // A shell that is cut is over.
                let _ = self.echo(id).await;
                return;
            }
            other => panic!("{other}"),
        };
        let headers = format!("Content-Type: {kind}\r\n");
        let request = format!("POST /engine/v1/reply?id={id}");
        if let Some((200, _)) = self.ask(&request, &headers, &reply).await {
            self.world.note("answered", reply.len());
            *self.world.answered.lock().unwrap().entry(id.to_owned()).or_default() += 1;
        }
    }

    /// A shell that sends back what it gets, and ends with it.
    async fn echo(&self, id: &str) -> Option<()> {
        use tokio_tungstenite::tungstenite::client::IntoClientRequest;
        let url = format!("ws://169.254.169.254/engine/v1/reply?id={id}");
        let mut request = url.into_client_request().ok()?;
        request.headers_mut().insert("metaservice-session", self.secret.parse().ok()?);
        let dialled = tokio_tungstenite::client_async(request, self.world.connect());
        let (mut socket, _) = timeout(Duration::from_secs(30), dialled).await.ok()?.ok()?;
        let mut session = ShellSession::new(Role::Guest);
        let mut held: Option<Bytes> = None;
        loop {
            // As much as there is room for goes back; the rest waits, and so does the host.
            while let Some(mut block) = held.take().or_else(|| session.read(Stream::Stdin)) {
                let room = session.writable(Stream::Stdout).min(block.len());
                if room > 0 {
                    session.write(Stream::Stdout, block.split_to(room));
                }
                if !block.is_empty() {
                    held = Some(block);
                    break;
                }
            }
            let over = held.is_none() && session.is_ended(Stream::Stdin);
            if over {
                session.finish(Stream::Stdout);
                session.finish(Stream::Stderr);
                session.exit(true, b"");
            }
            while let Some(message) = session.next_message() {
                socket.send(Message::Binary(message)).await.ok()?;
            }
            if over {
                return socket.close(None).await.ok();
            }
            // The host speaks every 15 s at least, if it is there.
            let message = timeout(Duration::from_secs(45), socket.next()).await.ok()??.ok()?;
            if let Message::Binary(message) = message
                && session.handle(&message).ok()? == Some(Event::Aborted)
            {
                return None;
            }
        }
    }
}

/// One request, on a connection of its own: the status and the body, unless it was cut.
async fn exchange(world: &Arc<World>, head: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut stream = world.connect();
    let length = body.len();
    let head = format!("{head}Host: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    let talk = async {
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(body).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let status = std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()?;
        let text = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let wanted = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let body = answer.split_off(end + 4);
        // Half an answer is none.
        (wanted.is_none_or(|wanted| wanted.parse() == Ok(body.len()))).then_some((status, body))
    };
    timeout(Duration::from_secs(45), talk).await.ok().flatten()
}

impl World {
    async fn pause(&self) {
        sleep(Duration::from_millis(self.draw(|random| random.random_range(50..2000)))).await;
    }
}

pub(crate) fn listing(path: &str) -> Vec<u8> {
    format!(r#"{{"files":["{path}/a","{path}/b"],"notFound":false}}"#).into_bytes()
}

pub(crate) fn content(path: &str) -> Vec<u8> {
    path.bytes().cycle().take(path.len() * 997 % 9000).collect()
}
