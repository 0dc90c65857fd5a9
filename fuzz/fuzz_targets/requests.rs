//! A whole conversation: any requests in any order, whole, cut or slow, against a service whose
//! host asks for things meanwhile. Whatever comes, the service goes on serving, and everything that
//! the host has asked for has an end.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use metaservice::{Bounds, DiskWork, MetaService, SessionMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

#[derive(Debug, Arbitrary)]
enum Step {
    /// The host wants something.
    Ask(Wish),
    /// The guest takes the next action, as an agent of ours or of version 1.
    Poll { ours: bool },
    /// The guest sends a request.
    Request(Request),
    /// Time passes.
    Wait(u8),
}

#[derive(Debug, Arbitrary)]
enum Wish {
    List,
    Artifact,
    Shell,
    Read,
    Kill,
}

#[derive(Debug, Arbitrary)]
struct Request {
    method: u8,
    path: u8,
    /// Which of the actions it speaks of, if any.
    id: Option<u8>,
    headers: Vec<(u8, String)>,
    body: Vec<u8>,
    /// The body's length is a lie.
    length: Option<u32>,
    chunked: bool,
    /// The connection ends after so many bytes.
    cut: Option<u16>,
}

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS"];
const PATHS: [&str; 10] =
    ["execute", "log", "success", "failed", "poll", "reply", "list-folder", "ping", "session", "x"];
const HEADERS: [&str; 12] = [
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
];
const AGENT: &str = r#"{"version":"9","os":"linux","arch":"x86_64","kernel":"6","capabilities":["exec","dial","read","write","list","stats","signal","terminal"]}"#;

fuzz_target!(|steps: Vec<Step>| {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().expect("a runtime").block_on(converse(steps));
});

async fn converse(steps: Vec<Step>) {
    let mut bounds = Bounds::default();
    bounds.list = 4096;
    bounds.log = 1 << 20;
    bounds.artifact = 4096;
    let service = MetaService::builder(["true"])
        .session(SessionMode::Claimed)
        .bounds(bounds)
        .disk_work(DiskWork::InPlace)
        .start()
        .expect("a service");
    let mut wishes = JoinSet::new();
    let mut ids = Vec::new();
    for step in steps.into_iter().take(24) {
        match step {
            Step::Ask(wish) => drop(wishes.spawn(ask(service.clone(), wish))),
            Step::Poll { ours } => {
                let agent =
                    if ours { format!("Metaservice-Agent: {AGENT}\r\n") } else { String::new() };
                let head = format!("GET /engine/v1/poll HTTP/1.1\r\nHost: a\r\n{agent}\r\n");
                let answer = exchange(&service, head.into_bytes(), false).await;
                let id = answer.split_once("\"id\":\"").and_then(|(_, rest)| rest.split_once('"'));
                ids.extend(id.map(|(id, _)| id.to_owned()));
            }
            Step::Request(request) => {
                let cut = request.cut;
                let mut bytes = written(request, &ids);
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
    // A log that was refused says so here.
    let _ = service.shutdown().await;
    while wishes.join_next().await.is_some() {}
}

async fn ask(service: MetaService, wish: Wish) {
    match wish {
        Wish::List => drop(service.list_folder("/").await),
        Wish::Artifact => drop(service.get_artifact("/f").await),
        Wish::Kill => drop(service.kill_process().await),
        Wish::Read => {
            if let Ok(mut reading) = service.read("/f", metaservice::Form::Any).await {
                while let Ok(Some(_)) = reading.chunk().await {}
            }
        }
        Wish::Shell => {
            if let Ok(mut shell) = service.exec_shell(["cat"], false).await {
                let mut all = Vec::new();
                if let Some(stdout) = shell.stdout.take() {
                    let _ = stdout.take(1 << 20).read_to_end(&mut all).await;
                }
                let _ = shell.wait().await;
            }
        }
    }
}

fn written(request: Request, ids: &[String]) -> Vec<u8> {
    let Request { method, path, id, headers, body, length, chunked, .. } = request;
    let pick = |names: &[&str], n: u8| names[usize::from(n) % names.len()].to_owned();
    let mut head = format!("{} /engine/v1/{}", pick(&METHODS, method), pick(&PATHS, path));
    if let Some(id) = id {
        let known = ids.get(usize::from(id) % ids.len().max(1));
        head += &format!("?id={}", known.map_or("0", String::as_str));
    }
    head += " HTTP/1.1\r\nHost: a\r\n";
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

/// Sends bytes over a connection of their own; what is answered within a minute.
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
