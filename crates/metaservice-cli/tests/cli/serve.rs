//! `metaservice serve`, with guests that were written from the protocol page.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Child, ChildStdout, Command, Stdio};

use metaservice_testing::cli::{Cli, finish};
use metaservice_testing::wait::TIMEOUT;
use rustix::process::Signal;

use crate::METASERVICE;

fn guest(address: &str) -> Child {
    Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/v1_guest.py"))
        .arg(format!("http://{address}/engine/v1"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_version_1_guest_uses_each_end_point_and_action() {
    let cli = Cli::new(METASERVICE);
    let args = [
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
    let service = cli.serve(&args);
    let guest = guest(&service.address);

    assert_eq!(cli.run(&["ls", "v1", "/a directory"]).text(0), "a\nb\n");
    assert_eq!(cli.run(&["ls", "-R", "v1", "/a directory/"]).text(0), "a\nb\n");
    cli.run(&["cp", "v1:/there", "copied"]).text(0);
    assert_eq!(std::fs::read(cli.work().join("copied")).unwrap(), b"\0content\xff");
    assert_eq!(cli.run(&["logs", "v1"]).text(0), "the log\n");
    needs_more(&cli, &["ls", "-l", "v1", "/a directory"], "list");
    needs_more(&cli, &["exec", "-e", "A=1", "v1", "true"], "exec");
    needs_more(&cli, &["exec", "-w", "/", "v1", "true"], "exec");
    needs_more(&cli, &["exec", "-u", "daemon", "v1", "true"], "exec");
    needs_more(&cli, &["exec", "-d", "v1", "true"], "exec");
    needs_more(&cli, &["cp", "v1:/there", "-"], "read");
    needs_more(&cli, &["cp", "copied", "v1:/"], "write");
    needs_more(&cli, &["kill", "-s", "HUP", "v1"], "signal");
    needs_more(&cli, &["stats", "v1"], "stats");
    needs_more(&cli, &["forward", "v1", "0:7"], "dial");
    needs_more(&cli, &["cp", "v1:/a directory", "copied-directory"], "read");
    assert!(!cli.work().join("copied-directory").exists());

    let mut shell =
        cli.command(["exec", "-i", "v1", "cat", "-"]).stdin(Stdio::piped()).spawn().unwrap();
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

    cli.run(&["kill", "v1"]).text(0);
    let finished = service.finish();
    assert_eq!(finished.text(1), "the log\nkilled\n");
    assert_eq!(std::fs::read(cli.work().join("there")).unwrap(), b"\0content\xff");
    assert!(!cli.work().join("gone").exists());
    let guest = finish(guest);
    assert_eq!((guest.status, guest.stderr.as_str()), (Some(0), ""));
}

#[test]
fn an_agent_without_a_session_is_reported_once() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["--name", "old", "--session", "required", "true"]);
    let event = || {
        let line = service.stderr.recv_timeout(TIMEOUT).unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()
    };
    let url = format!("http://{}/engine/v1", service.address);
    let curl = |args: &[&str], path: &str| curl(&[args, &[&format!("{url}/{path}")]].concat());
    for _ in 0..5 {
        assert!(curl(&[], "execute").contains("SessionRequired"));
    }
    let contact = event();
    assert_eq!((&contact["event"], &contact["contact"]), (&"contact".into(), &"no-session".into()));
    let listed = cli.run(&["ps"]).text(0);
    assert!(listed.contains("old") && listed.contains("refused"), "{listed}");
    assert!(cli.run(&["inspect", "old"]).text(0).contains(r#""contact": "no-session""#));

    let granted = curl(&["-X", "PUT", "-H", "Metaservice-Claim: word"], "session");
    let granted: serde_json::Value = serde_json::from_str(&granted).unwrap();
    let session = format!("Metaservice-Session: {}", granted["secret"].as_str().unwrap());
    assert!(curl(&["-H", &session], "execute").contains("true"));
    // The contact was reported once: only these two events follow, in either order.
    let mut next = [event(), event()].map(|event| event["event"].as_str().unwrap().to_owned());
    next.sort();
    assert_eq!(next, ["contact", "started"]);
    assert!(!cli.run(&["ps"]).text(0).contains("refused"));
    curl(&["-X", "PUT", "-H", &session], "success");
    assert_eq!(event()["event"], "ended");
    service.finish().text(0);
}

/// Checks that a version 1 agent cannot do this, and that one line says so.
#[track_caller]
fn needs_more(cli: &Cli, args: &[&str], capability: &str) {
    let finished = cli.run(args);
    assert_eq!(finished.text(125), "", "{args:?}");
    let told = &finished.stderr;
    assert_eq!(told.lines().count(), 1, "{args:?}: {told}");
    assert!(told.contains(&format!("'{capability}'")) && told.contains("version 1"), "{told}");
}

#[test]
fn a_failed_log_sink_is_reported_to_the_guest() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["--log", "/dev/full", "true"]);
    let url = format!("http://{}/engine/v1", service.address);
    curl(&[&format!("{url}/execute")]);
    let answer = curl(&["-w", "%{http_code}", "-d", "some log", &format!("{url}/log")]);
    assert!(answer.contains("\"InternalError\"") && answer.ends_with("500"), "{answer}");
    // The service then asks for an end of the command.
    let action: serde_json::Value = serde_json::from_str(&curl(&[&format!("{url}/poll")])).unwrap();
    assert_eq!(action["type"], "kill-process");
    curl(&["-d", "", &format!("{url}/reply?id={}", action["id"].as_str().unwrap())]);
    curl(&["-X", "PUT", &format!("{url}/failed")]);
    assert_eq!(service.finish().status, Some(125));
}

#[test]
fn a_unix_socket_serves_one_job_and_is_removed_with_it() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve_at("unix:service.sock", &["true"]);
    assert_eq!(service.address, "unix:service.sock");
    let second = cli.run(&["serve", "--listen", "unix:service.sock", "true"]);
    assert_eq!(second.text(125), "");
    assert!(
        second.stderr.contains("another process is listening on service.sock"),
        "{}",
        second.stderr
    );

    let socket = cli.work().join("service.sock");
    let result = "Metaservice-Result: {\"reason\":\"signaled\",\"signal\":15}";
    let through = ["-X", "PUT", "-H", result, "--unix-socket", socket.to_str().unwrap()];
    let answer = curl(&[&through[..], &["http://guest/engine/v1/failed"]].concat());
    assert_eq!(answer, "");
    assert_eq!(service.finish().status, Some(143));
    assert!(!socket.exists());
}

#[test]
fn a_unix_socket_without_a_listener_is_replaced() {
    let cli = Cli::new(METASERVICE);
    drop(UnixListener::bind(cli.work().join("service.sock")).unwrap());
    let service = cli.serve_at("unix:service.sock", &["true"]);
    service.stop(Signal::HUP);
}

#[test]
fn a_file_in_the_place_of_a_unix_socket_is_kept() {
    let cli = Cli::new(METASERVICE);
    let socket = cli.work().join("service.sock");
    std::fs::write(&socket, "a file").unwrap();
    let finished = cli.run(&["serve", "--listen", "unix:service.sock", "true"]);
    assert_eq!(finished.text(125), "");
    assert!(finished.stderr.contains("exists and is not a socket"), "{}", finished.stderr);
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "a file");
}

#[test]
fn a_name_is_used_by_one_job_at_a_time() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["--name", "one", "true"]);
    let second = cli.run(&["serve", "--listen", "127.0.0.1:0", "--name", "one", "true"]);
    assert_eq!(second.text(125), "");
    assert!(second.stderr.contains("a job named one is running"), "{}", second.stderr);
    service.stop(Signal::HUP);
}

#[test]
fn a_signal_ends_a_service_without_a_guest_at_once() {
    let cli = Cli::new(METASERVICE);
    assert_eq!(cli.serve(&["true"]).stop(Signal::HUP).status, Some(129));
}

#[test]
fn a_service_that_no_guest_comes_to_ends_as_lost() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["--limit", "no-guest=300ms", "true"]);
    let finished = service.finish();
    finished.text(125);
    let told = "no guest has sent a request for 300ms (--limit no-guest)";
    assert!(finished.stderr.contains(told), "{}", finished.stderr);
}

#[test]
fn a_service_whose_guest_is_gone_ends_by_force_and_says_so() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["--name", "gone", "true"]);
    cli.run(&["kill", "--force", "gone"]).text(0);
    let finished = service.finish();
    finished.text(137);
    let told = r#"{"event":"forced","reason":"asked"}"#;
    assert!(finished.stderr.contains(told), "{}", finished.stderr);
}

/// Sends a request of a guest.
fn curl(args: &[&str]) -> String {
    let output = Command::new("curl").arg("-s").args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_stopped_job_is_shown_as_silent_and_hides_no_other() {
    let cli = Cli::new(METASERVICE);
    let healthy = cli.serve(&["--name", "healthy", "true"]);
    let stopped = cli.serve(&["--name", "stopped", "true"]);
    let other_file = cli.jobs().join("odd/control.sock");
    std::fs::create_dir(cli.jobs().join("odd")).unwrap();
    std::fs::write(&other_file, "no socket").unwrap();
    stopped.signal(Signal::STOP);

    let table = cli.run(&["ps"]).text(0);
    let row = |name: &str| {
        let row = table.lines().find(|line| line.starts_with(name)).unwrap();
        row.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(table.lines().count(), 3, "{table}");
    for (name, state, job) in [("healthy", "waiting", &healthy), ("stopped", "silent", &stopped)] {
        let row = row(name);
        assert_eq!((row[0].as_str(), &row[6]), (state, &job.child.id().to_string()), "{table}");
    }
    assert_eq!(cli.run(&["ps", "-q"]).text(0), "healthy\nstopped\n");
    let jobs: serde_json::Value =
        serde_json::from_str(&cli.run(&["ps", "--json"]).text(0)).unwrap();
    assert_eq!((&jobs[0]["state"], &jobs[1]["state"]), (&"waiting".into(), &"silent".into()));

    stopped.signal(Signal::CONT);
    stopped.stop(Signal::HUP);
    healthy.stop(Signal::HUP);
    std::fs::remove_file(other_file).unwrap();
}

#[test]
fn a_verb_ends_with_an_error_when_its_job_is_stopped() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["--name", "stopped", "true"]);
    service.signal(Signal::STOP);
    let verbs =
        [&["inspect", "stopped"][..], &["logs", "-f", "stopped"], &["exec", "stopped", "true"]];
    for args in verbs {
        let finished = cli.run(args);
        assert_eq!(finished.text(125), "");
        assert!(finished.stderr.contains("does not answer"), "{args:?}: {}", finished.stderr);
    }
    service.signal(Signal::CONT);
    service.stop(Signal::HUP);
}

/// Starts `logs -f`, and reads the first line.
fn follow(cli: &Cli, name: &str, line: &str) -> (Child, BufReader<ChildStdout>) {
    let mut logs = cli.command(["logs", "-f", name]).spawn().unwrap();
    let mut stdout = BufReader::new(logs.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    assert_eq!(first, line);
    (logs, stdout)
}

#[test]
fn logs_f_ends_when_its_reader_closes_the_pipe() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["--name", "quiet", "true"]);
    service.request_with("POST", "log", "", "ready\n");
    let (mut logs, stdout) = follow(&cli, "quiet", "ready\n");
    // The log writes nothing more.
    drop(stdout);
    assert_eq!(logs.wait().unwrap().code(), Some(0));
    service.stop(Signal::HUP);
}

#[test]
fn logs_f_has_the_whole_log_when_its_reader_is_slower_than_the_job() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["--name", "long", "true"]);
    service.request("GET", "execute", "");
    service.request_with("POST", "log", "", "ready\n");
    let (mut logs, mut stdout) = follow(&cli, "long", "ready\n");

    let log = "a line of a long log\n".repeat(250_000);
    service.request_with("POST", "log", "", &log);
    service.request("PUT", "success", "");
    service.finish().text(0);

    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(rest == log, "{} of {} bytes", rest.len(), log.len());
    assert_eq!(logs.wait().unwrap().code(), Some(0));
}
