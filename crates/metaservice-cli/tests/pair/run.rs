//! Commands that are run in one request of the control API.

use std::path::{Path, PathBuf};
use std::process::Command;

use metaservice::Reason;
use metaservice::control::{self, Client, Code, RunRequest};
use metaservice_testing::pair::Pair;
use metaservice_testing::wait::{TIMEOUT, for_file, until};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::AGENT;

async fn controlled() -> (Pair, Client) {
    let pair = Pair::idle(&AGENT).await;
    let socket = pair.directory.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(control::serve("job", pair.service.clone(), listener));
    (pair, Client::new(socket))
}

fn sh(script: &str) -> RunRequest {
    RunRequest::new(["sh", "-c", script])
}

#[tokio::test]
async fn a_command_gets_its_stdin_and_gives_both_outputs_and_its_status() {
    let (_pair, client) = controlled().await;
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let mut request = sh("cat; echo $GREETING $PWD >&2; exit 3").with_stdin(&bytes);
    request.env.insert("GREETING".into(), "hello".into());
    request.workdir = Some("/usr".into());
    let result = client.run(&request).await.unwrap();
    assert!(result.stdout_bytes() == bytes && result.stdout.is_none());
    assert_eq!(result.stderr.as_deref(), Some("hello /usr\n"));
    assert_eq!((result.status, result.exit_code, result.signal), (3, Some(3), None));
    let killed = client.run(&sh("kill -9 $$")).await.unwrap();
    assert_eq!((killed.status, killed.exit_code, killed.signal), (137, None, Some(9)));
    let missing = client.run(&RunRequest::new(["/none"])).await.unwrap();
    assert_eq!((missing.status, missing.reason), (127, Some(Reason::NotFound)));
    let mut request = sh("true");
    request.user = Some("no-such-user".into());
    assert_eq!(client.run(&request).await.unwrap_err().code(), Some(Code::NotFound));
}

#[tokio::test]
async fn an_output_that_is_too_long_is_cut_and_marked() {
    let (_pair, client) = controlled().await;
    let script = "head -c 5000000 /dev/zero | tr '\\0' x; echo end >&2; exit 4";
    let result = client.run(&sh(script)).await.unwrap();
    assert_eq!(result.stdout.as_ref().map(String::len), Some(4 << 20));
    assert_eq!((result.stdout_truncated, result.stderr_truncated), (true, false));
    assert_eq!((result.stderr.as_deref(), result.status), (Some("end\n"), 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_takes_too_long_is_killed_and_its_output_is_kept() {
    let (_pair, client) = controlled().await;
    let mut request = sh("echo $$; exec sleep 1000");
    request.timeout_ms = Some(3000);
    let result = client.run(&request).await.unwrap();
    assert_eq!((result.status, result.reason), (124, Some(Reason::TimedOut)));
    is_killed(result.stdout.unwrap().trim());
}

/// Its outputs may end before, and the client may read nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_lines_are_sent_is_killed_after_its_time_too() {
    let (pair, client) = controlled().await;
    let closed = r#"{"command":["sh","-c","echo $$; exec sleep 1000 >&- 2>&-"],"timeoutMs":1000}"#;
    let lines = timeout(TIMEOUT, curl(client.socket(), "run?stream=true", closed)).await.unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.last().unwrap()["status"], 124, "{lines:?}");
    is_killed(lines[0]["stdout"].as_str().unwrap().trim());

    let file = pair.directory.path().join("flooding");
    let script = format!("echo $$ > new; mv new {}; exec yes", file.display());
    let directory = pair.directory.path();
    let body = serde_json::json!({
        "command": ["sh", "-c", script], "workdir": directory, "timeoutMs": 1000,
    });
    let _unread = post(client.socket(), "run?stream=true", &body.to_string()).await;
    let pid = tokio::task::spawn_blocking(move || {
        for_file(&file);
        std::fs::read_to_string(file).unwrap()
    });
    is_killed(pid.await.unwrap().trim());
}

/// Sends a request, and returns the connection with the response.
async fn post(socket: &Path, target: &str, body: &str) -> BufReader<UnixStream> {
    let mut stream = BufReader::new(UnixStream::connect(socket).await.unwrap());
    let head = format!("POST /v1/{target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ");
    let request = format!("{head}{}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Waits until the command, which is a process of this host, has ended.
fn is_killed(pid: &str) {
    assert!(pid.parse::<u32>().is_ok(), "{pid}");
    let process = PathBuf::from(format!("/proc/{pid}"));
    until("the command is killed", || !process.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_kills_its_command() {
    let (pair, client) = controlled().await;
    // In one answer.
    let mut request = sh("echo $$ > new; mv new pid; exec sleep 1000");
    request.workdir = Some(pair.directory.path().to_str().unwrap().into());
    let file = pair.directory.path().join("pid");
    let written = tokio::task::spawn_blocking({
        let file = file.clone();
        move || for_file(&file)
    });
    tokio::select! {
        result = client.run(&request) => panic!("{result:?}"),
        written = written => written.unwrap(),
    }
    is_killed(std::fs::read_to_string(file).unwrap().trim());
    // In lines.
    let body = r#"{"command":["sh","-c","echo $$; exec sleep 1000"]}"#;
    let mut stream = post(client.socket(), "run?stream=true", body).await;
    let mut line = String::new();
    while !line.starts_with("{\"stdout\":") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "the answer ended");
    }
    drop(stream);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    is_killed(line["stdout"].as_str().unwrap().trim());
}

/// Sends a request as in the examples of the documentation.
async fn curl(socket: &Path, target: &str, body: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["-s", "--unix-socket", socket.to_str().unwrap(), "-d", body]);
    command.arg(format!("http://localhost/v1/{target}"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_runs_a_command_and_follows_it() {
    let (_pair, client) = controlled().await;
    let answer = curl(client.socket(), "run", r#"{"command":["echo","hello"]}"#).await;
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["stdout"], &answer["status"]), (&"hello\n".into(), &0.into()));

    let body = r#"{"command":["sh","-c","cat; printf '\\377' >&2; exit 5"],"stdin":"in"}"#;
    let lines = curl(client.socket(), "run?stream=true", body).await;
    let mut lines: Vec<_> = lines.lines().collect();
    let end: serde_json::Value = serde_json::from_str(lines.pop().unwrap()).unwrap();
    assert_eq!((&end["status"], &end["exitCode"]), (&5.into(), &5.into()));
    lines.sort_unstable();
    assert_eq!(lines, [r#"{"stderrBase64":"/w=="}"#, r#"{"stdout":"in"}"#]);

    for (target, body) in [
        ("run", r#"{"command":["true"],"no":1}"#),
        ("run", r#"{"command":["true"],"stdin":"","stdinBase64":""}"#),
        ("run", "no JSON"),
        ("run?stream=perhaps", "{}"),
    ] {
        let refused = curl(client.socket(), target, body).await;
        let refused: serde_json::Value = serde_json::from_str(&refused).unwrap();
        assert_eq!(refused["code"], "InvalidRequest", "{body}");
    }
}

/// A command that is not started in its time is not started later.
#[tokio::test]
async fn a_command_that_the_guest_does_not_start_in_time_is_withdrawn() {
    let service = metaservice::MetaService::builder(["true"]).start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(control::serve("job", service, listener));
    let mut request = sh("true");
    request.timeout_ms = Some(50);
    let running = Client::new(socket).run(&request).await;
    assert_eq!(running.unwrap_err().code(), Some(Code::TimedOut));
}
