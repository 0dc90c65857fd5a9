//! `metaservice serve` for a guest that was written from the protocol page alone.
#![allow(clippy::unwrap_used)]

mod vm;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use vm::{Sandbox, finish};

/// Starts the service with `args`; returns it, its address, and what it says from then on.
fn serve(sandbox: &Sandbox, args: &[&str]) -> (Child, String) {
    let args = ["serve", "--json", "--listen"].into_iter().chain(args.iter().copied());
    let mut child = sandbox.command(args).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    // The rest is read and thrown away, so that the tool is never held up.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    (child, event["address"].as_str().unwrap().to_owned())
}

fn guest(address: &str) -> Child {
    Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/v1_guest.py"))
        .arg(format!("http://{address}/engine/v1"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_strict_guest_goes_through_every_end_point_and_action() {
    let sandbox = Sandbox::new();
    let args = [
        "127.0.0.1:0",
        "--name",
        "v1",
        "-e",
        "GREETING=hello",
        "--artifact",
        "/there",
        "--artifact",
        "/gone",
        "do",
        "it",
    ];
    let (service, address) = serve(&sandbox, &args);
    let guest = guest(&address);

    assert_eq!(sandbox.run(&["ls", "v1", "/a folder"]).text(0), "a\nb\n");
    assert_eq!(sandbox.run(&["ls", "-R", "v1", "/a folder/"]).text(0), "a\nb\n");
    sandbox.run(&["cp", "v1:/there", "copied"]).text(0);
    assert_eq!(std::fs::read(sandbox.work().join("copied")).unwrap(), b"\0content\xff");
    assert_eq!(sandbox.run(&["logs", "v1"]).text(0), "the log\n");
    needs_more(&sandbox, &["ls", "-l", "v1", "/a folder"], "list");
    needs_more(&sandbox, &["exec", "-e", "A=1", "v1", "true"], "exec");
    needs_more(&sandbox, &["exec", "-w", "/", "v1", "true"], "exec");
    needs_more(&sandbox, &["exec", "-u", "nobody", "v1", "true"], "exec");
    needs_more(&sandbox, &["exec", "-d", "v1", "true"], "exec");
    needs_more(&sandbox, &["cp", "v1:/there", "-"], "read");
    needs_more(&sandbox, &["cp", "copied", "v1:/"], "write");
    needs_more(&sandbox, &["kill", "-s", "HUP", "v1"], "signal");
    needs_more(&sandbox, &["stats", "v1"], "stats");
    needs_more(&sandbox, &["forward", "v1", "0:7"], "dial");
    needs_more(&sandbox, &["cp", "v1:/a folder", "copied-folder"], "read");
    assert!(!sandbox.work().join("copied-folder").exists());

    let mut shell =
        sandbox.command(["exec", "-i", "v1", "cat", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let content: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let mut stdin = shell.stdin.take().unwrap();
    let feeding = std::thread::spawn({
        let content = content.clone();
        move || stdin.write_all(&content)
    });
    let shell = finish(shell);
    feeding.join().unwrap().unwrap();
    assert_eq!(shell.stderr, r#"["cat", "-"]"#);
    assert_eq!(shell.status, Some(1));
    assert!(shell.stdout == content);

    sandbox.run(&["kill", "v1"]).text(0);
    let finished = finish(service);
    assert_eq!(finished.text(1), "the log\nkilled\n");
    assert_eq!(std::fs::read(sandbox.work().join("there")).unwrap(), b"\0content\xff");
    assert!(!sandbox.work().join("gone").exists());
    let guest = finish(guest);
    assert_eq!((guest.status, guest.stderr.as_str()), (Some(0), ""));
}

#[test]
fn an_agent_without_the_session_that_its_job_needs_is_told_once() {
    let sandbox = Sandbox::new();
    let args =
        ["serve", "--json", "--listen", "127.0.0.1:0", "--name", "old", "--session", "required"];
    let mut service = sandbox.command(args.into_iter().chain(["true"])).spawn().unwrap();
    let mut stderr = BufReader::new(service.stderr.take().unwrap());
    let mut event = || {
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()
    };
    let url = format!("http://{}/engine/v1", event()["address"].as_str().unwrap());
    let curl = |args: &[&str], path: &str| {
        let mut command = Command::new("curl");
        let output = command.arg("-s").args(args).arg(format!("{url}/{path}")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for _ in 0..5 {
        assert!(curl(&[], "execute").contains("SessionRequired"));
    }
    let told = event();
    assert_eq!((&told["event"], &told["contact"]), (&"contact".into(), &"no-session".into()));
    let listed = sandbox.run(&["ps"]).text(0);
    assert!(listed.contains("old") && listed.contains("refused"), "{listed}");
    assert!(sandbox.run(&["inspect", "old"]).text(0).contains(r#""contact": "no-session""#));

    let granted = curl(&["-X", "PUT", "-H", "Metaservice-Claim: word"], "session");
    let granted: serde_json::Value = serde_json::from_str(&granted).unwrap();
    let session = format!("Metaservice-Session: {}", granted["secret"].as_str().unwrap());
    assert!(curl(&["-H", &session], "execute").contains("true"));
    // Nothing but this, in either order: it was told once.
    let mut next = [event(), event()].map(|event| event["event"].as_str().unwrap().to_owned());
    next.sort();
    assert_eq!(next, ["contact", "started"]);
    assert!(!sandbox.run(&["ps"]).text(0).contains("refused"));
    curl(&["-X", "PUT", "-H", &session], "success");
    assert_eq!(event()["event"], "ended");
    assert_eq!(finish(service).status, Some(0));
}

/// What an agent of version 1 cannot do is told in one line.
#[track_caller]
fn needs_more(sandbox: &Sandbox, args: &[&str], capability: &str) {
    let finished = sandbox.run(args);
    assert_eq!(finished.text(125), "", "{args:?}");
    let told = &finished.stderr;
    assert_eq!(told.lines().count(), 1, "{args:?}: {told}");
    assert!(told.contains(&format!("'{capability}'")) && told.contains("version 1"), "{told}");
}

#[test]
fn a_log_that_cannot_be_written_is_told_to_the_guest() {
    let sandbox = Sandbox::new();
    let (service, address) = serve(&sandbox, &["127.0.0.1:0", "--log", "/dev/full", "true"]);
    let url = format!("http://{address}/engine/v1");
    let curl = |args: &[&str]| {
        let output = Command::new("curl").args(["-s"]).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    curl(&[&format!("{url}/execute")]);
    let answer = curl(&["-w", "%{http_code}", "-d", "some log", &format!("{url}/log")]);
    assert!(answer.contains("\"InternalError\"") && answer.ends_with("500"), "{answer}");
    // Then the command is to be killed.
    let action: serde_json::Value = serde_json::from_str(&curl(&[&format!("{url}/poll")])).unwrap();
    assert_eq!(action["type"], "kill-process");
    curl(&["-d", "", &format!("{url}/reply?id={}", action["id"].as_str().unwrap())]);
    curl(&["-X", "PUT", &format!("{url}/failed")]);
    assert_eq!(finish(service).status, Some(125));
}

#[test]
fn a_unix_socket_serves_and_a_stale_one_is_taken_over() {
    let sandbox = Sandbox::new();
    let socket = sandbox.work().join("service.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let (service, address) = serve(&sandbox, &["unix:service.sock", "true"]);
    assert_eq!(address, "unix:service.sock");
    let second = sandbox.run(&["serve", "--listen", "unix:service.sock", "true"]);
    second.text(125);
    assert!(second.stderr.contains("somebody is listening on service.sock already"));
    let curl = Command::new("curl")
        .args([
            "-s",
            "-X",
            "PUT",
            "-H",
            "Metaservice-Result: {\"reason\":\"signaled\",\"signal\":15}",
            "--unix-socket",
        ])
        .arg(&socket)
        .arg("http://guest/engine/v1/failed")
        .output()
        .unwrap();
    assert!(curl.status.success() && curl.stdout.is_empty(), "{curl:?}");
    assert_eq!(finish(service).status, Some(143));
    assert!(!socket.exists());

    std::fs::write(&socket, "a file").unwrap();
    let refused = sandbox.run(&["serve", "--listen", "unix:service.sock", "true"]);
    refused.text(125);
    assert!(refused.stderr.contains("exists and is no socket; it is left alone"));
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "a file");
}

#[test]
fn a_name_is_one_jobs_at_a_time() {
    let sandbox = Sandbox::new();
    let (mut service, _) = serve(&sandbox, &["127.0.0.1:0", "--name", "one", "true"]);
    let second = sandbox.run(&["serve", "--listen", "127.0.0.1:0", "--name", "one", "true"]);
    second.text(125);
    assert!(second.stderr.contains("a job named one is running"), "{}", second.stderr);
    let pid = service.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    // The guest never came: there is no command to kill, and nothing to wait for.
    assert_eq!(service.wait().unwrap().code(), Some(129));
}
