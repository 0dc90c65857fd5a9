//! Hostile files, archives, listings and artifacts.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use metaservice_testing::cli::{Cli, Finished, finish};
use serde_json::Value;

use super::{Attack, flood};
use crate::METASERVICE;

/// The head line of an agent that can read files.
const AGENT: &str = "Metaservice-Agent: {\"version\":\"9\",\"os\":\"linux\",\"arch\":\"x86_64\",\
                     \"kernel\":\"6\",\"capabilities\":[\"read\"]}\r\n";

/// A tebibyte. A sparse file has such a length.
const ENDLESS: u64 = 1 << 40;

/// A service that accepts files of at most 64 MiB.
fn attack() -> Attack {
    Attack::new(&["--max-artifact", "64M", "--limit", "storage=100M"])
}

/// What the agent sends as the reply to `cp attacked:/f f`.
struct Reply<'a> {
    /// The header that describes the file.
    file: &'a str,
    /// The body, and its announced length.
    body: &'a [u8],
    length: u64,
    /// What follows the body until the connection is closed.
    block: &'a [u8],
}

/// Sends `reply`. Returns how many bytes of the block are accepted, and how `cp` ends.
fn copy(attack: &Attack, reply: &Reply<'_>) -> (usize, Finished) {
    let client = attack.cli.command(["cp", "attacked:/f", "f"]).spawn().unwrap();
    let id = attack.service.poll(AGENT);
    let head = format!(
        "POST /engine/v1/reply?id={id} HTTP/1.1\r\nHost: a\r\nMetaservice-File: {}\r\n\
         Content-Type: application/vnd.metaservice.transfer\r\nContent-Length: {}\r\n\r\n",
        reply.file, reply.length
    );
    let stream = attack.service.send(&head, reply.body);
    let sent = if reply.block.is_empty() { 0 } else { flood(&stream, reply.block) };
    let finished = finish(client);
    assert_eq!(finished.text(125), "");
    assert_eq!(std::fs::read_dir(attack.cli.work()).unwrap().count(), 0, "a file is left");
    (sent, finished)
}

/// A block of 256 KiB of zeros in the encoding of a transfer.
fn zeros() -> Vec<u8> {
    [&0x0004_0000_u32.to_be_bytes()[..], &[0; 0x0004_0000]].concat()
}

/// The head of the member `name` of a tar archive, with a size of 8 GiB.
fn member(name: &str) -> [u8; 512] {
    let mut head = [0; 512];
    head[..name.len()].copy_from_slice(name.as_bytes());
    head[100..107].copy_from_slice(b"0000644");
    head[124..135].copy_from_slice(b"77777777777");
    head[136..147].copy_from_slice(b"00000000000");
    head[148..156].copy_from_slice(b"        ");
    head[156] = b'0';
    head[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    head
}

/// An archive that begins with `member` and then has an error of the agent.
fn archive_with_error(member: &[u8; 512]) -> Vec<u8> {
    let error = br#"{"code":"other","message":"disk error"}"#;
    let length = 0x8000_0000 | u32::try_from(error.len()).unwrap();
    [&512_u32.to_be_bytes()[..], member, &length.to_be_bytes(), error].concat()
}

#[test]
fn a_file_that_is_longer_than_announced_is_refused() {
    let attack = attack();
    let file = r#"{"form":"file","size":9,"mode":420,"mtimeNs":0}"#;
    let reply = Reply { file, body: &[], length: ENDLESS, block: &zeros() };
    let (sent, finished) = copy(&attack, &reply);
    assert!(sent < super::BUFFERED, "{sent} bytes are accepted");
    let error = "more came of the file than it has";
    assert!(finished.stderr.contains(error), "{}", finished.stderr);
    attack.assert_harmless();
}

#[test]
fn a_file_without_a_size_ends_at_the_limit() {
    let attack = attack();
    let file = r#"{"form":"file","mode":420,"mtimeNs":0}"#;
    let reply = Reply { file, body: &[], length: ENDLESS, block: &zeros() };
    let (sent, finished) = copy(&attack, &reply);
    assert!(sent < 80 << 20, "{sent} bytes are accepted");
    assert!(finished.stderr.contains("larger than 67108864 bytes"), "{}", finished.stderr);
    attack.assert_harmless();
}

#[test]
fn an_archive_without_an_end_ends_at_the_limit() {
    let attack = attack();
    let body = [&512_u32.to_be_bytes()[..], &member("f")].concat();
    let file = r#"{"form":"archive","mode":493,"mtimeNs":0}"#;
    let reply = Reply { file, body: &body, length: ENDLESS, block: &zeros() };
    let (sent, finished) = copy(&attack, &reply);
    assert!(sent < 80 << 20, "{sent} bytes are accepted");
    assert!(finished.stderr.contains("larger than 67108864 bytes"), "{}", finished.stderr);
    attack.assert_harmless();
}

#[test]
fn a_file_that_announces_too_many_bytes_is_refused_at_once() {
    let attack = attack();
    let client = attack.cli.command(["cp", "attacked:/f", "f"]).spawn().unwrap();
    let id = attack.service.poll(AGENT);
    let file = r#"{"form":"file","size":67108865,"mode":420,"mtimeNs":0}"#;
    let line = format!("Metaservice-File: {file}\r\n");
    attack.service.request("POST", &format!("reply?id={id}"), &line);
    let finished = finish(client);
    assert!(finished.stderr.contains("larger than 67108864 bytes"), "{}", finished.stderr);
    attack.assert_harmless();
}

#[test]
fn an_error_of_the_agent_in_the_middle_of_an_archive_is_shown() {
    let attack = attack();
    let body = archive_with_error(&member("f"));
    let file = r#"{"form":"archive","mode":493,"mtimeNs":0}"#;
    let reply = Reply { file, body: &body, length: body.len() as u64, block: &[] };
    let (_, finished) = copy(&attack, &reply);
    assert!(finished.stderr.contains("disk error"), "{}", finished.stderr);
    attack.assert_harmless();
}

#[test]
fn an_archive_with_a_path_outside_is_refused() {
    let attack = attack();
    let body = archive_with_error(&member("../f"));
    let file = r#"{"form":"archive","mode":493,"mtimeNs":0}"#;
    let reply = Reply { file, body: &body, length: body.len() as u64, block: &[] };
    let (_, finished) = copy(&attack, &reply);
    assert!(finished.stderr.contains("not allowed"), "{}", finished.stderr);
    attack.assert_harmless();
}

/// Answers the version 1 action of `verb` with `begin`, and then `block` without an end.
fn answer_without_end(verb: &[&str], kind: &str, begin: &str, block: &str) -> Finished {
    let attack = attack();
    let client = attack.cli.command(verb).stdout(std::process::Stdio::null()).spawn().unwrap();
    let id = attack.service.poll("");
    let head = format!(
        "POST /engine/v1/reply?id={id} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n\
         Content-Length: {ENDLESS}\r\n\r\n{begin}"
    );
    let stream = attack.service.send(&head, b"");
    let sent = flood(&stream, block.repeat(100_000).as_bytes());
    assert!(sent < 128 << 20, "{sent} bytes are accepted");
    let finished = finish(client);
    assert_eq!(finished.status, Some(125));
    assert_eq!(std::fs::read_dir(attack.cli.work()).unwrap().count(), 0, "a file is left");
    attack.assert_harmless();
    finished
}

#[test]
fn a_listing_without_an_end_is_refused() {
    let verb = ["ls", "attacked", "/"];
    let finished = answer_without_end(&verb, "application/json", "{\"files\":[", "\"/f\",");
    assert!(finished.stderr.contains("a Files payload has at most"), "{}", finished.stderr);
}

#[test]
fn a_version_1_file_without_an_end_is_refused() {
    let verb = ["cp", "attacked:/f", "f"];
    let finished = answer_without_end(&verb, "application/octet-stream", "", "\0");
    assert!(finished.stderr.contains("larger than"), "{}", finished.stderr);
}

#[test]
fn an_artifact_that_arrives_byte_by_byte_ends_at_its_timeout() {
    let cli = Cli::new(METASERVICE);
    let args = ["--artifact", "/f", "--limit", "artifact-timeout=2s", "true"];
    let service = cli.serve_at("unix:here", &args);
    let request = |head: &str| {
        let mut stream = UnixStream::connect(cli.work().join("here")).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let answer = |request_line: &str| {
        let rest = "HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let mut answer = String::new();
        request(&format!("{request_line} {rest}")).read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    answer("GET /engine/v1/execute");
    answer("PUT /engine/v1/success");
    let action: Value = serde_json::from_str(&answer("GET /engine/v1/poll")).unwrap();
    let id = action["id"].as_str().unwrap();
    let mut stream = request(&format!(
        "POST /engine/v1/reply?id={id} HTTP/1.1\r\nHost: a\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n"
    ));

    // One byte in 100 ms, until the service closes the connection.
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    for _ in 0..1_000_000 {
        let written = stream.write_all(b"x");
        let read = stream.read(&mut [0]);
        if written.is_err() || !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            break;
        }
    }

    let finished = service.finish();
    assert_eq!(finished.text(125), "");
    let error = "the artifacts were not fetched within 2s";
    assert!(finished.stderr.contains(error), "{}", finished.stderr);
    assert!(!cli.work().join("f").exists());
}
