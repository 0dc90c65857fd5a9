//! `metaservice serve` for a guest that was written from the protocol page alone.
use metaservice_testing::cli::{Cli, finish};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::METASERVICE;

/// Starts the service with `args`; returns it, its address, and what it says from then on.
fn serve(cli: &Cli, args: &[&str]) -> (Child, String) {
    let args = ["serve", "--json", "--listen"].into_iter().chain(args.iter().copied());
    let mut child = cli.command(args).spawn().unwrap();
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
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/v1_guest.py"))
        .arg(format!("http://{address}/engine/v1"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_strict_guest_goes_through_every_end_point_and_action() {
    let cli = Cli::new(METASERVICE);
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
    let (service, address) = serve(&cli, &args);
    let guest = guest(&address);

    assert_eq!(cli.run(&["ls", "v1", "/a folder"]).text(0), "a\nb\n");
    assert_eq!(cli.run(&["ls", "-R", "v1", "/a folder/"]).text(0), "a\nb\n");
    cli.run(&["cp", "v1:/there", "copied"]).text(0);
    assert_eq!(std::fs::read(cli.work().join("copied")).unwrap(), b"\0content\xff");
    assert_eq!(cli.run(&["logs", "v1"]).text(0), "the log\n");
    needs_more(&cli, &["ls", "-l", "v1", "/a folder"], "list");
    needs_more(&cli, &["exec", "-e", "A=1", "v1", "true"], "exec");
    needs_more(&cli, &["exec", "-w", "/", "v1", "true"], "exec");
    needs_more(&cli, &["exec", "-u", "nobody", "v1", "true"], "exec");
    needs_more(&cli, &["exec", "-d", "v1", "true"], "exec");
    needs_more(&cli, &["cp", "v1:/there", "-"], "read");
    needs_more(&cli, &["cp", "copied", "v1:/"], "write");
    needs_more(&cli, &["kill", "-s", "HUP", "v1"], "signal");
    needs_more(&cli, &["stats", "v1"], "stats");
    needs_more(&cli, &["forward", "v1", "0:7"], "dial");
    needs_more(&cli, &["cp", "v1:/a folder", "copied-folder"], "read");
    assert!(!cli.work().join("copied-folder").exists());

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
    let finished = finish(service);
    assert_eq!(finished.text(1), "the log\nkilled\n");
    assert_eq!(std::fs::read(cli.work().join("there")).unwrap(), b"\0content\xff");
    assert!(!cli.work().join("gone").exists());
    let guest = finish(guest);
    assert_eq!((guest.status, guest.stderr.as_str()), (Some(0), ""));
}

#[test]
fn an_agent_without_the_session_that_its_job_needs_is_told_once() {
    let cli = Cli::new(METASERVICE);
    let args =
        ["serve", "--json", "--listen", "127.0.0.1:0", "--name", "old", "--session", "required"];
    let mut service = cli.command(args.into_iter().chain(["true"])).spawn().unwrap();
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
    let listed = cli.run(&["ps"]).text(0);
    assert!(listed.contains("old") && listed.contains("refused"), "{listed}");
    assert!(cli.run(&["inspect", "old"]).text(0).contains(r#""contact": "no-session""#));

    let granted = curl(&["-X", "PUT", "-H", "Metaservice-Claim: word"], "session");
    let granted: serde_json::Value = serde_json::from_str(&granted).unwrap();
    let session = format!("Metaservice-Session: {}", granted["secret"].as_str().unwrap());
    assert!(curl(&["-H", &session], "execute").contains("true"));
    // Nothing but this, in either order: it was told once.
    let mut next = [event(), event()].map(|event| event["event"].as_str().unwrap().to_owned());
    next.sort();
    assert_eq!(next, ["contact", "started"]);
    assert!(!cli.run(&["ps"]).text(0).contains("refused"));
    curl(&["-X", "PUT", "-H", &session], "success");
    assert_eq!(event()["event"], "ended");
    assert_eq!(finish(service).status, Some(0));
}

/// What an agent of version 1 cannot do is told in one line.
#[track_caller]
fn needs_more(cli: &Cli, args: &[&str], capability: &str) {
    let finished = cli.run(args);
    assert_eq!(finished.text(125), "", "{args:?}");
    let told = &finished.stderr;
    assert_eq!(told.lines().count(), 1, "{args:?}: {told}");
    assert!(told.contains(&format!("'{capability}'")) && told.contains("version 1"), "{told}");
}

#[test]
fn a_log_that_cannot_be_written_is_told_to_the_guest() {
    let cli = Cli::new(METASERVICE);
    let (service, address) = serve(&cli, &["127.0.0.1:0", "--log", "/dev/full", "true"]);
    let url = format!("http://{address}/engine/v1");
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
    let cli = Cli::new(METASERVICE);
    let socket = cli.work().join("service.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let (service, address) = serve(&cli, &["unix:service.sock", "true"]);
    assert_eq!(address, "unix:service.sock");
    let second = cli.run(&["serve", "--listen", "unix:service.sock", "true"]);
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
    let refused = cli.run(&["serve", "--listen", "unix:service.sock", "true"]);
    refused.text(125);
    assert!(refused.stderr.contains("exists and is no socket; it is left alone"));
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "a file");
}

#[test]
fn a_name_is_one_jobs_at_a_time() {
    let cli = Cli::new(METASERVICE);
    let (mut service, _) = serve(&cli, &["127.0.0.1:0", "--name", "one", "true"]);
    let second = cli.run(&["serve", "--listen", "127.0.0.1:0", "--name", "one", "true"]);
    second.text(125);
    assert!(second.stderr.contains("a job named one is running"), "{}", second.stderr);
    let pid = service.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    // The guest never came: there is no command to kill, and nothing to wait for.
    assert_eq!(service.wait().unwrap().code(), Some(129));
}

/// Asks the guest's side of a service.
fn curl(args: &[&str]) -> String {
    let output = Command::new("curl").arg("-s").args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A job whose process is stopped hides no other, and holds no verb for ever.
#[test]
fn a_stopped_job_is_told_and_hides_no_other() {
    let cli = Cli::new(METASERVICE);
    let (mut well, _) = serve(&cli, &["127.0.0.1:0", "--name", "well", "true"]);
    let (mut stuck, _) = serve(&cli, &["127.0.0.1:0", "--name", "stuck", "true"]);
    let signal = |child: &Child, name: &str| {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    std::fs::write(cli.runtime().join("metaservice/odd.sock"), "no socket").unwrap();
    signal(&stuck, "-STOP");
    let table = cli.run(&["ps"]).text(0);
    let row = |name: &str| {
        let row = table.lines().find(|line| line.starts_with(name)).unwrap();
        row.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(table.lines().count(), 3, "{table}");
    assert_eq!(row("well")[..2], ["waiting".to_owned(), well.id().to_string()]);
    assert_eq!(row("stuck")[..2], ["silent".to_owned(), stuck.id().to_string()]);
    assert_eq!(cli.run(&["ps", "-q"]).text(0), "stuck\nwell\n");
    let jobs: serde_json::Value =
        serde_json::from_str(&cli.run(&["ps", "--json"]).text(0)).unwrap();
    assert_eq!((&jobs[0]["state"], &jobs[1]["state"]), (&"silent".into(), &"waiting".into()));
    for args in [&["inspect", "stuck"][..], &["logs", "-f", "stuck"], &["exec", "stuck", "true"]] {
        let finished = cli.run(args);
        finished.text(125);
        assert!(finished.stderr.contains("does not answer"), "{args:?}: {}", finished.stderr);
    }
    signal(&stuck, "-CONT");
    for child in [&mut well, &mut stuck] {
        signal(child, "-HUP");
        assert_eq!(child.wait().unwrap().code(), Some(129));
    }
    std::fs::remove_file(cli.runtime().join("metaservice/odd.sock")).unwrap();
}

#[test]
fn a_log_that_is_followed_has_its_end_though_its_job_has_gone() {
    let cli = Cli::new(METASERVICE);
    let (service, address) = serve(&cli, &["127.0.0.1:0", "--name", "long", "true"]);
    let url = format!("http://{address}/engine/v1");
    let service = std::thread::spawn(move || finish(service));
    curl(&[&format!("{url}/execute")]);
    let line = "a line of a log that is long\n";
    let log = format!("READY\n{}", line.repeat(5_000_000 / line.len()));
    std::fs::write(cli.work().join("log"), &log).unwrap();
    curl(&["-d", "READY\n", &format!("{url}/log")]);

    // Its reader ends while there is nothing to write.
    let mut quiet = cli.command(["logs", "-f", "long"]).spawn().unwrap();
    let mut stdout = BufReader::new(quiet.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    assert_eq!(quiet.wait().unwrap().code(), Some(0));

    // It reads nothing until the job has gone.
    let mut slow = cli.command(["logs", "-f", "long"]).spawn().unwrap();
    let mut stdout = BufReader::new(slow.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    let file = cli.work().join("log");
    let body = format!("@{}", file.display());
    curl(&["--data-binary", &body, &format!("{url}/log")]);
    curl(&["-X", "PUT", &format!("{url}/success")]);
    assert_eq!(service.join().unwrap().status, Some(0));
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    assert!(first == "READY\n" && rest == log, "{} of {} bytes", rest.len(), log.len());
    assert_eq!(slow.wait().unwrap().code(), Some(0));
}
