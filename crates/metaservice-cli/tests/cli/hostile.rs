//! A guest that means harm: the host's memory stays under a figure, and others are served.
// The moments of an attack are no events.
#![allow(clippy::disallowed_methods)]

use metaservice_testing::cli::{Cli, finish, wait_for};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::METASERVICE;

/// What the service of one job may take of the host's memory, whatever its guest does.
const MOST_MEMORY: u64 = 96 * 1024 * 1024;

/// How long connections are made and kept.
const ATTACK: Duration = Duration::from_secs(20);

/// How long a peer may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    fn start(cli: &Cli, name: &str, args: &[&str]) -> Self {
        let mut child = cli
            .command(["serve", "--json", "--listen", "127.0.0.1:0", "--name", name])
            .args(args)
            .arg("true")
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Self { child, address: event["address"].as_str().unwrap().parse().unwrap() }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a request whole; the answer's first line and its body.
    fn ask(&self, method: &str, path: &str) -> (String, String) {
        self.ask_with(method, path, "")
    }

    /// As [`ask`](Self::ask), with another header line.
    fn ask_with(&self, method: &str, path: &str, line: &str) -> (String, String) {
        let mut stream = self.connect();
        let head = format!(
            "{method} /engine/v1/{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n{line}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    fn is_serving(&self) {
        assert_eq!(self.ask("GET", "ping").0, "HTTP/1.1 200 OK");
    }

    /// The id of the next action.
    fn poll(&self) -> String {
        self.poll_as("")
    }

    /// As [`poll`](Self::poll), with a header line that announces an agent.
    fn poll_as(&self, agent: &str) -> String {
        let answer = self.ask_with("GET", "poll", agent).1;
        let action: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_ne!(action["type"], "none");
        action["id"].as_str().unwrap().to_owned()
    }

    /// The most memory it has had so far, in bytes.
    fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    #[track_caller]
    fn is_well(&self) {
        self.is_serving();
        let memory = self.memory();
        println!("{} KiB of memory at most", memory / 1024);
        assert!(memory < MOST_MEMORY, "{memory} bytes");
    }

    fn end(self) {
        let pid = self.child.id().to_string();
        std::process::Command::new("kill").arg(pid).status().unwrap();
        finish(self.child);
    }
}

/// Sends `block` until the other side wants no more; how many bytes it took.
fn flood(mut stream: &TcpStream, block: &[u8]) -> usize {
    let mut sent = 0;
    while let Ok(count @ 1..) = stream.write(block) {
        sent += count;
        assert!(sent < 1 << 30, "it takes everything");
    }
    sent
}

#[test]
fn heads_without_an_end_are_cut() {
    let cli = Cli::new(METASERVICE);
    let service = Service::start(&cli, "heads", &[]);
    for (begin, block) in [
        ("GET /", "a".repeat(64 * 1024)),
        ("GET / HTTP/1.1\r\n", "name: value\r\n".repeat(5000)),
        ("GET / HTTP/1.1\r\nname: ", "v".repeat(64 * 1024)),
        ("POST /engine/v1/log HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;", "x".repeat(65536)),
        ("", "\r\n".repeat(30_000)),
        ("\0\u{7f}", "\0".repeat(65536)),
    ] {
        let mut stream = service.connect();
        stream.write_all(begin.as_bytes()).unwrap();
        let sent = flood(&stream, block.as_bytes());
        // What the sockets hold, and no more.
        assert!(sent < 16 << 20, "{begin:?}: {sent} bytes are taken");
    }
    service.is_well();
    service.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_that_say_little_are_let_go() {
    let cli = Cli::new(METASERVICE);
    let other = Service::start(&cli, "other", &[]);
    let service = Service::start(&cli, "many", &["--limit", "head-time=2s"]);
    let address = service.address;
    let mut connecting = tokio::task::JoinSet::new();
    for n in 0..10_000 {
        connecting.spawn(tokio::time::timeout(ATTACK, async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            // Those that the socket's queue has no room for are kept waiting by the kernel.
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            stream.write_all(b"GET /engine/v1/ping HTT").await?;
            if n % 2 == 1 {
                // Nearly as much as a head may have.
                stream.write_all(b"P/1.1\r\nname: ").await?;
                stream.write_all(&[b'v'; 15_000]).await?;
            }
            // Cut, or told: both are an end.
            stream.read_to_end(&mut Vec::new()).await
        }));
    }
    let mut let_go = 0;
    let everybody = async {
        while let Some(connected) = connecting.join_next().await {
            let_go += u32::from(connected.unwrap().is_ok());
        }
    };
    let meanwhile = async {
        loop {
            tokio::task::block_in_place(|| other.is_serving());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = everybody => {}
        () = meanwhile => {}
    }
    println!("{let_go} connections were let go");
    assert!(let_go > 1024, "{let_go}");
    tokio::task::block_in_place(|| {
        service.is_well();
        service.end();
        other.end();
    });
}

#[test]
fn a_listing_without_an_end_and_a_file_without_an_end_are_refused() {
    let cli = Cli::new(METASERVICE);
    let args = ["--max-artifact", "64M", "--limit", "storage=100M"];
    let service = Service::start(&cli, "endless", &args);
    for (verb, kind, begin, block, told) in [
        (
            vec!["ls", "endless", "/"],
            "application/json",
            "{\"files\":[",
            "\"/f\",",
            "a Files payload has at most",
        ),
        (vec!["cp", "endless:/f", "f"], "application/octet-stream", "", "\0", "larger than"),
    ] {
        let asking = cli.command(&verb).stdout(Stdio::null()).spawn().unwrap();
        let id = service.poll();
        let mut stream = service.connect();
        // A tebibyte, as a sparse file would have it.
        let head = format!(
            "POST /engine/v1/reply?id={id} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n\
             Content-Length: 1099511627776\r\n\r\n{begin}"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let sent = flood(&stream, block.repeat(100_000).as_bytes());
        assert!(sent < 128 << 20, "{verb:?}: {sent} bytes are taken");
        let finished = finish(asking);
        assert_eq!(finished.status, Some(125));
        assert!(finished.stderr.contains(told), "{}", finished.stderr);
    }
    assert!(!cli.work().join("f").exists());
    service.is_well();
    service.end();
}

/// The head of a tar archive's member of 8 GiB.
fn member() -> [u8; 512] {
    let mut head = [0; 512];
    head[0] = b'f';
    head[100..107].copy_from_slice(b"0000644");
    head[124..135].copy_from_slice(b"77777777777");
    head[136..147].copy_from_slice(b"00000000000");
    head[156] = b'0';
    head[257..265].copy_from_slice(b"ustar\x0000");
    summed(head)
}

/// With its sum anew.
fn summed(mut head: [u8; 512]) -> [u8; 512] {
    head[148..156].copy_from_slice(b"        ");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    head
}

#[test]
fn an_agents_file_or_archive_without_an_end_is_refused() {
    let cli = Cli::new(METASERVICE);
    let service = Service::start(&cli, "growing", &["--max-artifact", "64M"]);
    let agent = "Metaservice-Agent: {\"version\":\"9\",\"os\":\"linux\",\"arch\":\"x86_64\",\
                 \"kernel\":\"6\",\"capabilities\":[\"read\"]}\r\n";
    // Blocks of 256 KiB of content, without an end.
    let block = [&0x0004_0000_u32.to_be_bytes()[..], &[0; 0x0004_0000]].concat();
    let begun = [&512_u32.to_be_bytes()[..], &member()].concat();
    let (longer, larger) = ("more came of the file than it has", "larger than 67108864 bytes");
    for (head, begin, most, why) in [
        (r#"{"form":"file","size":9,"mode":420,"mtimeNs":0}"#, &[][..], 16 << 20, longer),
        (r#"{"form":"file","mode":420,"mtimeNs":0}"#, &[], 80 << 20, larger),
        (r#"{"form":"archive","mode":493,"mtimeNs":0}"#, &begun, 80 << 20, larger),
    ] {
        let copying = cli.command(["cp", "growing:/f", "f"]).spawn().unwrap();
        let id = service.poll_as(agent);
        let mut stream = service.connect();
        let head = format!(
            "POST /engine/v1/reply?id={id} HTTP/1.1\r\nHost: a\r\nMetaservice-File: {head}\r\n\
             Content-Type: application/vnd.metaservice.transfer\r\n\
             Content-Length: 1099511627776\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), begin].concat()).unwrap();
        let sent = flood(&stream, &block);
        assert!(sent < most, "{head}: {sent} bytes are taken");
        let finished = finish(copying);
        assert_eq!(finished.status, Some(125), "{head}: {}", finished.stderr);
        assert!(finished.stderr.contains(why), "{head}: {}", finished.stderr);
        let left: Vec<_> = std::fs::read_dir(cli.work()).unwrap().collect();
        assert!(left.is_empty(), "{head}: {left:?}");
    }
    // What ends too soon is told in the guest's words, but for what the host has against it.
    let said = br#"{"code":"other","message":"disk error"}"#;
    let length = u32::try_from(said.len()).unwrap();
    let failed = [&(0x8000_0000 | length).to_be_bytes()[..], said].concat();
    let mut outside = member();
    outside[..4].copy_from_slice(b"../f");
    for (member, why) in [(member(), "disk error"), (summed(outside), "not allowed")] {
        let copying = cli.command(["cp", "growing:/f", "f"]).spawn().unwrap();
        let id = service.poll_as(agent);
        let mut stream = service.connect();
        let body = [&512_u32.to_be_bytes()[..], &member, &failed].concat();
        let head = format!(
            "POST /engine/v1/reply?id={id} HTTP/1.1\r\nHost: a\r\n\
             Metaservice-File: {{\"form\":\"archive\",\"mode\":493,\"mtimeNs\":0}}\r\n\
             Content-Type: application/vnd.metaservice.transfer\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        let finished = finish(copying);
        assert_eq!(finished.status, Some(125), "{why}: {}", finished.stderr);
        assert!(finished.stderr.contains(why), "{why}: {}", finished.stderr);
    }
    // What says of itself that it is too large is refused at once, and why.
    let copying = cli.command(["cp", "growing:/f", "f"]).spawn().unwrap();
    let head = r#"Metaservice-File: {"form":"file","size":67108865,"mode":420,"mtimeNs":0}"#;
    let id = service.poll_as(agent);
    service.ask_with("POST", &format!("reply?id={id}"), &format!("{head}\r\n"));
    let finished = finish(copying);
    assert!(finished.stderr.contains("larger than 67108864 bytes"), "{}", finished.stderr);
    service.is_well();
    service.end();
}

#[test]
fn websocket_frames_of_any_announced_size_are_cut() {
    let cli = Cli::new(METASERVICE);
    let service = Service::start(&cli, "frames", &[]);
    let four_gib: [u8; 10] = [0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0];
    for frame in [
        four_gib,
        // The most that can be said.
        [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        // A piece of a message that never ends.
        [0x02, 0xff, 0, 0, 0, 0, 0, 0, 0x40, 0],
        // Reserved bits, a reserved opcode, a ping that is too long.
        [0xf2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0],
        [0x83, 0x80, 0, 0, 0, 0, 0, 0, 0, 0],
        [0x89, 0xff, 0, 0, 0, 0, 0, 0, 1, 0],
    ] {
        let asking = cli.command(["exec", "frames", "cat"]).spawn().unwrap();
        let id = service.poll();
        let mut stream = service.connect();
        let head = format!(
            "GET /engine/v1/reply?id={id} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
        stream.write_all(&frame).unwrap();
        let sent = flood(&stream, &[0; 64 * 1024]);
        assert!(sent < 16 << 20, "{frame:x?}: {sent} bytes are taken");
        assert_eq!(finish(asking).status, Some(125));
    }
    service.is_well();
    service.end();
}

#[test]
fn ids_that_were_never_given_or_are_used_up_are_refused() {
    let cli = Cli::new(METASERVICE);
    let service = Service::start(&cli, "ids", &[]);
    let asking = cli.command(["ls", "ids", "/"]).spawn().unwrap();
    let id = service.poll();
    let forged = format!("{:032x}", u128::from_str_radix(&id, 16).unwrap() ^ 1);
    let long = "a".repeat(10_000);
    for wrong in [&*forged, "", "0", "%00", "../poll", &long, &id.to_uppercase()] {
        if wrong == id {
            continue;
        }
        let (line, body) = service.ask("POST", &format!("reply?id={wrong}"));
        assert!(
            line.starts_with("HTTP/1.1 4") && body.contains("UnknownActionId"),
            "{line} {body}"
        );
    }
    let json = r#"{"files":["/f"],"notFound":false}"#;
    let reply = || {
        let mut stream = service.connect();
        let head = format!(
            "POST /engine/v1/reply?id={id} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
            json.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(reply().starts_with("HTTP/1.1 200"));
    let again = reply();
    assert!(again.starts_with("HTTP/1.1 4") && again.contains("UnknownActionId"), "{again}");
    finish(asking).text(0);
    service.is_well();
    service.end();
}

#[test]
fn an_artifact_that_comes_byte_by_byte_does_not_hold_its_host_for_ever() {
    let cli = Cli::new(METASERVICE);
    let args = ["serve", "--json", "--listen", "unix:here", "--artifact", "/f"];
    let command = ["--limit", "artifact-timeout=2s", "true"];
    let mut child = cli.command([&args[..], &command].concat()).spawn().unwrap();
    let said = wait_for(&mut child, "\"event\":\"serving\"");
    let connect = || UnixStream::connect(cli.work().join("here")).unwrap();
    let ask = |request: &str| {
        let mut stream = connect();
        let rest = "HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(format!("{request} {rest}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    ask("GET /engine/v1/execute");
    ask("PUT /engine/v1/success");
    let answer = ask("GET /engine/v1/poll");
    let action: serde_json::Value =
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let id = action["id"].as_str().unwrap();
    let mut stream = connect();
    let head = format!(
        "POST /engine/v1/reply?id={id} HTTP/1.1\r\nHost: a\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let begun = std::time::Instant::now();
    while stream.write_all(b"x").is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it takes everything");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(child.wait().unwrap().code(), Some(125));
    let said: String = said.iter().collect();
    assert!(said.contains("the artifacts were not fetched within 2s"), "{said}");
    assert!(!cli.work().join("f").exists());
}
