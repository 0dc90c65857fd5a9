//! A conversation: any requests in any order, complete, truncated or slow, to a service whose host
//! makes calls at the same time. The service always keeps serving, and each call of the host ends.

use std::time::Duration;

use crate::typed::steps_of;
use arbitrary::Arbitrary;
use futures_util::TryStreamExt;
use metaservice::{Cloud, Destination, DiskWork, Limits, MetaService, SessionMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

#[derive(Debug, Arbitrary)]
enum Step {
    /// The host makes a call.
    Call(Call),
    /// The guest polls for the next action, with or without an announcement (version 1).
    Poll { announced: bool },
    /// The guest claims the job, and uses the secret of the session from then on.
    Claim,
    /// The guest sends a request.
    Request(Request),
    /// The guest answers an action with a stream.
    Stream(Stream),
    /// Time passes.
    Wait(u8),
}

#[derive(Debug, Arbitrary)]
enum Call {
    List,
    Artifact,
    Shell,
    Read,
    Kill,
    Write,
    Listing,
    Statistics,
    Dial,
    Detached,
}

#[derive(Debug, Arbitrary)]
struct Request {
    /// With the secret of the session, if there is one.
    authorized: bool,
    method: u8,
    path: u8,
    /// The action that it names, if any.
    id: Option<u8>,
    headers: Vec<(u8, String)>,
    body: Vec<u8>,
    /// A false length of the body.
    length: Option<u32>,
    chunked: bool,
    /// The connection ends after this number of bytes.
    cut: Option<u16>,
}

#[derive(Debug, Arbitrary)]
struct Stream {
    id: u8,
    /// Uses stream protocol v2.
    v2: bool,
    messages: Vec<(u8, Vec<u8>)>,
    /// Bytes after the messages that are not a message.
    rest: Vec<u8>,
}

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS"];
const PATHS: [&str; 14] = [
    "/engine/v1/execute",
    "/engine/v1/log",
    "/engine/v1/success",
    "/engine/v1/failed",
    "/engine/v1/poll",
    "/engine/v1/reply",
    "/engine/v1/list-folder",
    "/engine/v1/ping",
    "/engine/v1/session",
    "/engine/v1/x",
    "/engine/v1/renewal",
    "/latest/api/token",
    "/latest/meta-data/",
    "/latest/user-data",
];
const HEADERS: [&str; 16] = [
    "Content-Type",
    "X-Taskcluster-Worker-Error",
    "Metaservice-Result",
    "Metaservice-Agent",
    "Metaservice-Failure",
    "Metaservice-File",
    "Metaservice-Log",
    "Metaservice-Claim",
    "Metaservice-Session",
    "Sec-WebSocket-Key",
    "Upgrade",
    "Host",
    "Connection",
    "Sec-WebSocket-Version",
    "X-aws-ec2-metadata-token",
    "X-aws-ec2-metadata-token-ttl-seconds",
];
const AGENT: &str = concat!(
    r#"{"version":"9","os":"linux","arch":"x86_64","kernel":"6","capabilities":["#,
    r#""exec","dial","read","write","list","stats","signal","terminal"]}"#
);

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(input: &[u8]) {
    let steps: Vec<Step> = steps_of(input);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().expect("a runtime").block_on(converse(steps));
}

async fn converse(steps: Vec<Step>) {
    let mut limits = Limits::default();
    limits.list = 4096;
    limits.log = 1 << 20;
    limits.artifact = 4096;
    let service = MetaService::builder(["true"])
        .session(SessionMode::Claimed)
        .cloud(Cloud::new("fuzzed"))
        .limits(limits)
        .disk_work(DiskWork::InPlace)
        .start()
        .expect("a service");
    let mut calls = JoinSet::new();
    let (mut ids, mut session) = (Vec::new(), String::new());
    for step in steps.into_iter().take(24) {
        match step {
            Step::Call(call) => drop(calls.spawn(make(service.clone(), call))),
            Step::Poll { announced } => {
                let announcement = format!("Metaservice-Agent: {AGENT}\r\n");
                let agent = if announced { announcement } else { String::new() };
                let head =
                    format!("GET /engine/v1/poll HTTP/1.1\r\nHost: a\r\n{session}{agent}\r\n");
                let answer = exchange(&service, head.into_bytes(), false).await;
                ids.extend(member(&answer, "id"));
            }
            Step::Claim => {
                let head =
                    "PUT /engine/v1/session HTTP/1.1\r\nHost: a\r\nMetaservice-Claim: me\r\n\r\n";
                let answer = exchange(&service, head.into(), false).await;
                if let Some(secret) = member(&answer, "secret") {
                    session = format!("Metaservice-Session: {secret}\r\n");
                }
            }
            Step::Stream(stream) => {
                exchange(&service, streamed(stream, &ids, &session), true).await;
            }
            Step::Request(request) => {
                let cut = request.cut;
                let mut bytes = written(request, &ids, &session);
                if let Some(cut) = cut {
                    bytes.truncate(usize::from(cut));
                }
                exchange(&service, bytes, cut.is_some()).await;
            }
            Step::Wait(seconds) => tokio::time::sleep(Duration::from_secs(seconds.into())).await,
        }
    }
    let ping = b"GET /engine/v1/ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec();
    assert!(exchange(&service, ping, false).await.starts_with("HTTP/1.1 200"));
    // A refused log is an error here. It is expected.
    let _ = service.shutdown().await;
    while calls.join_next().await.is_some() {}
}

async fn make(service: MetaService, call: Call) {
    match call {
        Call::List => drop(service.list("/").files().await),
        Call::Artifact => drop(service.read("/f").spool().await),
        Call::Kill => drop(service.kill().await),
        Call::Write => drop(service.write(Destination::file("/f"), &b"content"[..]).await),
        Call::Listing => {
            if let Ok(mut lines) = service.list("/").recursive(true).entries().await {
                while let Ok(Some(_)) = lines.try_next().await {}
            }
        }
        Call::Statistics => {
            if let Ok(mut lines) = service.stats(None).await {
                while let Ok(Some(_)) = lines.try_next().await {}
            }
        }
        Call::Dial => {
            if let Ok(mut dialled) = service.dial("localhost", 80).await {
                let _ = dialled.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
                let _ = dialled.take(1 << 20).read_to_end(&mut Vec::new()).await;
            }
        }
        Call::Detached => {
            drop(service.exec(["true"]).spawn_detached().await);
        }
        Call::Read => {
            if let Ok(mut reading) = service.read("/f").form(metaservice::Form::Any).open().await {
                while let Ok(Some(_)) = reading.try_next().await {}
            }
        }
        Call::Shell => {
            if let Ok(mut shell) = service.exec(["cat"]).spawn().await {
                let mut all = Vec::new();
                if let Some(stdout) = shell.stdout.take() {
                    let _ = stdout.take(1 << 20).read_to_end(&mut all).await;
                }
                let _ = shell.wait().await;
            }
        }
    }
}

/// The string value of a JSON member.
fn member(json: &str, name: &str) -> Option<String> {
    let (_, rest) = json.split_once(&format!("\"{name}\":\""))?;
    rest.split_once('"').map(|(text, _)| text.to_owned())
}

/// A websocket handshake, and messages as a guest masks them.
fn streamed(stream: Stream, ids: &[String], session: &str) -> Vec<u8> {
    let Stream { id, v2, messages, rest } = stream;
    let id = ids.get(usize::from(id) % ids.len().max(1)).map_or("0", String::as_str);
    let offer = "Sec-WebSocket-Protocol: shell.2.metaservice, shell.1.metaservice\r\n";
    let offer = if v2 { offer } else { "" };
    let mut bytes = format!(
        "GET /engine/v1/reply?id={id} HTTP/1.1\r\nHost: a\r\n{session}{offer}\
         Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes();
    for (opcode, payload) in messages {
        // Mostly binary messages: a stream uses no others.
        let opcode = if opcode < 16 { opcode } else { 2 };
        bytes.push(0x80 | opcode);
        match u8::try_from(payload.len()) {
            Ok(length @ ..=125) => bytes.push(0x80 | length),
            _ => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
            }
        }
        // A mask of zeros does not change the bytes.
        bytes.extend([0; 4]);
        bytes.extend(payload);
    }
    bytes.extend(rest);
    bytes
}

fn written(request: Request, ids: &[String], session: &str) -> Vec<u8> {
    let Request { authorized, method, path, id, headers, body, length, chunked, .. } = request;
    let pick = |names: &[&str], n: u8| names[usize::from(n) % names.len()].to_owned();
    let mut head = format!("{} {}", pick(&METHODS, method), pick(&PATHS, path));
    if let Some(id) = id {
        let known = ids.get(usize::from(id) % ids.len().max(1));
        head += &format!("?id={}", known.map_or("0", String::as_str));
    }
    head += &format!(" HTTP/1.1\r\nHost: a\r\n{}", if authorized { session } else { "" });
    for (name, value) in headers {
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        head += &format!("{}: {value}\r\n", pick(&HEADERS, name));
    }
    if chunked {
        head += "Transfer-Encoding: chunked\r\n\r\n";
        let mut bytes = head.into_bytes();
        for piece in body.chunks(7) {
            bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
            bytes.extend_from_slice(piece);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        return bytes;
    }
    let length = length.map_or(body.len(), |length| length as usize);
    head += &format!("Content-Length: {length}\r\n\r\n");
    [head.into_bytes(), body].concat()
}

/// Sends bytes over a new connection. Returns the answer of the first minute.
async fn exchange(service: &MetaService, bytes: Vec<u8>, cut: bool) -> String {
    let (mut near, far) = tokio::io::duplex(1024);
    let service = service.clone();
    tokio::spawn(async move { service.serve_connection(far).await });
    let mut answer = Vec::new();
    let talk = async {
        let (mut reader, mut writer) = tokio::io::split(&mut near);
        let write = async {
            let _ = writer.write_all(&bytes).await;
            if cut {
                let _ = writer.shutdown().await;
            }
        };
        let read = async {
            let mut block = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut block).await {
                answer.extend_from_slice(&block[..count]);
                if answer.len() > 1 << 20 {
                    break;
                }
            }
        };
        tokio::join!(write, read);
    };
    let _ = tokio::time::timeout(Duration::from_secs(60), talk).await;
    String::from_utf8_lossy(&answer).into_owned()
}
