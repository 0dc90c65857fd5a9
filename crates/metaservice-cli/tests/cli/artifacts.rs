//! Artifacts, with guests that were written from the protocol page and some that are hostile.

use std::io::Write;

use metaservice_testing::cli::{Cli, Service};
use serde_json::{Value, json};

use crate::METASERVICE;

/// The head line of an agent that reads and lists files.
const AGENT: &str = "Metaservice-Agent: {\"version\":\"9\",\"os\":\"linux\",\"arch\":\"x86_64\",\
                     \"kernel\":\"6\",\"capabilities\":[\"read\",\"list\"]}\r\n";

/// Fetches the command, and reports its end.
fn end(service: &Service, how: &str) {
    assert_eq!(service.request("GET", "execute", AGENT).0, "HTTP/1.1 200 OK");
    assert_eq!(service.request("PUT", how, AGENT).0, "HTTP/1.1 200 OK");
}

/// The next action.
fn action(service: &Service) -> Value {
    serde_json::from_str(&service.request("GET", "poll", AGENT).1).unwrap()
}

/// Answers a list with these names.
fn list(service: &Service, names: &[&str]) {
    let action = action(service);
    assert_eq!(action["type"], "list");
    let line = |name: &&str| {
        let entry = json!({
            "path": name, "kind": "file", "size": 1, "mode": 420, "mtimeNs": 0, "uid": 0, "gid": 0,
            "links": 1,
        });
        format!("{entry}\n")
    };
    let lines: String = names.iter().map(line).collect();
    let reply = format!("reply?id={}", action["id"].as_str().unwrap());
    let kind = "Content-Type: application/jsonl\r\n";
    assert_eq!(service.request_with("POST", &reply, kind, &lines).0, "HTTP/1.1 200 OK");
}

/// Refuses the next read, and returns its path.
fn refuse_read(service: &Service) -> String {
    let action = action(service);
    assert_eq!(action["type"], "read");
    let failure = r#"Metaservice-Failure: {"code":"not-found","message":"gone"}"#;
    let reply = format!("reply?id={}", action["id"].as_str().unwrap());
    service.request("POST", &reply, &format!("{failure}\r\n"));
    action["path"].as_str().unwrap().to_owned()
}

#[test]
fn only_a_plain_name_of_a_guest_is_fetched() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["--artifact", "/d/*:out", "--", "true"]);
    end(&service, "success");
    let hostile = ["..", ".", "", "/etc/passwd", "../x", "a/b", "a\0b", ".hidden", "good"];
    list(&service, &hostile);
    assert_eq!(refuse_read(&service), "/d/good");
    let finished = service.finish();
    finished.text(125);
    assert_eq!(finished.stderr.matches("cannot fetch").count(), 1, "{}", finished.stderr);
    assert_eq!(std::fs::read_dir(cli.work()).unwrap().count(), 0);
}

#[test]
fn two_matches_with_one_destination_are_both_refused() {
    let cli = Cli::new(METASERVICE);
    let artifacts = ["--artifact", "/a/*:out", "--artifact", "/b/*:out/."];
    let service = cli.serve(&[&artifacts[..], &["--", "true"]].concat());
    end(&service, "success");
    list(&service, &["x", "twice", "twice"]);
    list(&service, &["x"]);
    let finished = service.finish();
    finished.text(125);
    let refused = finished.stderr.matches("neither is written").count();
    assert_eq!(refused, 4, "{}", finished.stderr);
    assert_eq!(std::fs::read_dir(cli.work()).unwrap().count(), 0);
}

#[test]
fn a_name_of_a_guest_moves_no_terminal() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve_in_words(&["--artifact", "/d/*:out", "--", "true"]);
    end(&service, "success");
    list(&service, &["a\u{1b}[2J\u{202e}b"]);
    let action = action(&service);
    assert_eq!(action["type"], "read");
    let reply = format!("reply?id={}", action["id"].as_str().unwrap());
    let kind = "Content-Type: application/vnd.metaservice.transfer\r\n\
                Metaservice-File: {\"form\":\"file\",\"size\":0,\"mode\":420,\"mtimeNs\":0}\r\n";
    let digest = 0xef46_db37_51d8_e999_u64;
    let empty = [&((3 << 29) | 16_u32).to_be_bytes()[..], &[0; 8], &digest.to_be_bytes()].concat();
    assert_eq!(service.request_with("POST", &reply, kind, &empty).0, "HTTP/1.1 200 OK");
    let finished = service.finish();
    finished.text(0);
    let says = "/d/a\u{fffd}[2J\u{fffd}b -> out/a\u{fffd}[2J\u{fffd}b (0 bytes)";
    assert!(finished.stderr.contains(says), "{:?}", finished.stderr);
    assert!(!finished.stderr.contains('\u{1b}'), "{:?}", finished.stderr);
}

#[test]
fn a_pattern_without_a_match_is_a_missing_artifact() {
    for (how, status) in [("success", 125), ("failed", 1)] {
        let cli = Cli::new(METASERVICE);
        let service = cli.serve(&["--artifact", "/d/*.xml:out", "--", "true"]);
        end(&service, how);
        list(&service, &["a.txt"]);
        let finished = service.finish();
        finished.text(status);
        let says = "cannot fetch /d/*.xml: nothing in the guest matches";
        assert!(finished.stderr.contains(says), "{}", finished.stderr);
    }
}

#[test]
fn artifacts_are_fetched_when_they_are_wanted() {
    for (when, how, status) in [("failure", "success", 0), ("success", "failed", 1)] {
        let cli = Cli::new(METASERVICE);
        let service = cli.serve(&["--artifacts-on", when, "--artifact", "/x", "--", "true"]);
        end(&service, how);
        let finished = service.finish();
        finished.text(status);
        assert!(!finished.stderr.contains("\"error\""), "{}", finished.stderr);
    }
}

#[test]
fn a_directory_of_more_names_than_the_limit_is_refused() {
    const LIMIT: usize = 100_000;
    let cli = Cli::new(METASERVICE);
    let limit = format!("names={LIMIT}");
    let service = cli.serve(&["--limit", &limit, "--artifact", "/d/*.xml:out", "--", "true"]);
    end(&service, "success");
    let action = action(&service);
    let head = format!(
        "POST /engine/v1/reply?id={} HTTP/1.1\r\nHost: a\r\nContent-Type: application/jsonl\r\n\
         Content-Length: {}\r\n\r\n",
        action["id"].as_str().unwrap(),
        1u64 << 40
    );
    let stream = service.send(&head, b"");
    let entry = r#"{"path":"name","kind":"file","size":1,"mode":420,"mtimeNs":0,"uid":0,"gid":0,"links":1}"#;
    let block = format!("{entry}\n").repeat(1000);
    let (mut sent, mut memory) = (0, 0);
    while let Ok(count @ 1..) = (&stream).write(block.as_bytes()) {
        sent += count;
        assert!(sent < 200 << 20, "the connection stays open");
        // It ends when the limit is exceeded.
        memory = service.peak_memory().unwrap_or(memory);
    }
    let finished = service.finish();
    finished.text(125);
    let says = format!("there are more than {LIMIT} names to compare with the pattern");
    assert!(finished.stderr.contains(&says), "{}", finished.stderr);
    assert!(memory < 96 << 20, "{memory} bytes of memory");
}

#[test]
fn an_agent_of_version_1_lists_the_files_that_a_pattern_matches() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["--artifact", "/d/**/*.xml:out", "--", "true"]);
    service.request("GET", "execute", "");
    service.request("PUT", "success", "");
    let answer = |lines: &str, body: &str| {
        let action: Value = serde_json::from_str(&service.request("GET", "poll", "").1).unwrap();
        let reply = format!("reply?id={}", action["id"].as_str().unwrap());
        assert_eq!(service.request_with("POST", &reply, lines, body).0, "HTTP/1.1 200 OK");
        action["type"].as_str().unwrap().to_owned()
    };
    let files = json!({
        "files": ["/d/x/a.xml", "/d/b.txt", "/d/../../etc/c.xml", "/elsewhere/d.xml"],
        "notFound": false,
    });
    let kind = "Content-Type: application/json\r\n";
    assert_eq!(answer(kind, &files.to_string()), "list-folder");
    assert_eq!(answer("", "content"), "get-artifact");
    service.finish().text(0);
    let out = cli.work().join("out");
    assert_eq!(std::fs::read_to_string(out.join("a.xml")).unwrap(), "content");
    assert_eq!(std::fs::read_dir(out).unwrap().count(), 1);
}
