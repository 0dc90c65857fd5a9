//! The job's command, and other commands beside it.

use std::time::Duration;

use futures_util::TryStreamExt;
use metaservice::{
    ActionError, Command, ExecError, Failure, FailureCode, MetaService, Reason, TerminalSize,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use metaservice_testing::pair::Pair;

use crate::AGENT;

fn sh<'a>(pair: &'a Pair, script: &str) -> Command<'a, MetaService> {
    pair.service.exec(["sh", "-c", script])
}

/// Runs a command. Returns its output, and its exit code or signal.
async fn run(exec: Command<'_, MetaService>) -> (String, String, Option<u8>, Option<u8>) {
    let output = exec.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let status = output.status;
    assert_eq!(status.success(), status.ending().unwrap().is_success());
    (text(output.stdout), text(output.stderr), status.code(), status.signal())
}

/// Returns why the guest refuses a command.
fn refused<T>(result: Result<T, ExecError>) -> Failure {
    match result.map(drop) {
        Err(ExecError::NotFound(failure) | ExecError::Action(ActionError::Failed(failure))) => {
            failure
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_command_has_its_environment_directory_and_exit_code() {
    let pair = Pair::idle(&AGENT).await;
    let exec = sh(&pair, "echo $GREETING $PWD; echo bad >&2; exit 42");
    let (out, error, code, signal) = run(exec.env("GREETING", "hello").workdir("/usr")).await;
    assert_eq!((out.as_str(), error.as_str()), ("hello /usr\n", "bad\n"));
    assert_eq!((code, signal), (Some(42), None));
    assert_eq!(run(sh(&pair, "kill -9 $$")).await.3, Some(9));

    let missing = pair.service.exec(["/none"]).status().await.unwrap();
    assert!(!missing.success());
    assert_eq!(missing.ending().unwrap().reason, Reason::NotFound);
    assert_eq!(missing.ending().unwrap().shell_status(), 127);

    let agent = pair.service.agent().unwrap();
    assert_eq!((agent.os.as_str(), agent.version.as_str()), ("linux", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn an_unknown_user_is_refused_before_anything_runs() {
    let pair = Pair::idle(&AGENT).await;
    for detach in [false, true] {
        let exec = sh(&pair, "true").user("no-such-user");
        let failure = match detach {
            false => refused(exec.spawn().await),
            true => refused(exec.spawn_detached().await),
        };
        assert_eq!(failure.code, FailureCode::NotFound);
        assert!(failure.message.contains("no-such-user"), "{failure}");
    }
}

#[tokio::test]
async fn a_detached_command_that_does_not_start_is_no_success() {
    let pair = Pair::idle(&AGENT).await;
    let file = pair.directory.path().join("plain");
    std::fs::write(&file, "no program").unwrap();
    let command = |words: &[&str], workdir: Option<&str>| {
        let exec = pair.service.exec(words.iter().copied());
        match workdir {
            Some(workdir) => exec.workdir(workdir),
            None => exec,
        }
    };
    let too_long = "x".repeat(128 * 1024);
    for (exec, code, words) in [
        (command(&["/none"], None), FailureCode::NotFound, "cannot run '/none'"),
        (command(&[file.to_str().unwrap()], None), FailureCode::Invalid, "Permission denied"),
        (command(&["true"], Some("/none")), FailureCode::Invalid, "directory '/none'"),
        (command(&["true", &too_long], None), FailureCode::Invalid, "list too long"),
    ] {
        let failure = refused(exec.spawn_detached().await);
        assert_eq!(failure.code, code, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
    }
    // A command that ends at once has still started.
    sh(&pair, "exit 3").spawn_detached().await.unwrap();
}

#[tokio::test]
async fn a_signal_reaches_a_command_with_and_without_a_terminal() {
    let pair = Pair::idle(&AGENT).await;
    let script = "trap 'echo caught; exit 7' USR1; echo ready; while :; do sleep 0.05; done";
    for tty in [false, true] {
        let exec = sh(&pair, script).terminal_size(TerminalSize { columns: 91, rows: 37 });
        let exec = if tty { exec.terminal() } else { exec };
        let mut shell = exec.spawn().await.unwrap();
        let mut stdout = shell.stdout.take().unwrap();
        let mut seen = String::new();
        while !seen.contains("ready") {
            let mut bytes = [0; 100];
            let count = stdout.read(&mut bytes).await.unwrap();
            seen += std::str::from_utf8(&bytes[..count]).unwrap();
        }
        shell.signal(10);
        stdout.read_to_string(&mut seen).await.unwrap();
        assert!(seen.contains("caught"), "{seen}");
        assert_eq!(shell.wait().await.unwrap().code(), Some(7));
    }
    let size = TerminalSize { columns: 91, rows: 37 };
    let (out, ..) = run(sh(&pair, "stty size").terminal().terminal_size(size)).await;
    assert_eq!(out, "37 91\r\n");
}

#[tokio::test]
async fn a_detached_command_goes_on_and_dies_with_the_agent() {
    let pair = Pair::idle(&AGENT).await;
    let file = pair.directory.path().join("it-ran");
    let script = format!("echo yes > {}; exec sleep 500", file.display());
    let pid = sh(&pair, &script).spawn_detached().await.unwrap();
    let mut found = String::new();
    while found != "yes\n" {
        found = std::fs::read_to_string(&file).unwrap_or_default();
        tokio::task::yield_now().await;
    }
    let alive = || std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(alive());
    drop(pair);
    assert!(!alive(), "the agent has ended, and it has not");
}

#[tokio::test]
async fn a_port_of_the_guest_is_reached_with_half_closes() {
    let pair = Pair::idle(&AGENT).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let echo = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        connection.read_to_end(&mut all).await.unwrap();
        connection.write_all(&all).await.unwrap();
    });
    let dialled = pair.service.dial("localhost", port).await.unwrap();
    let (mut from, mut to) = tokio::io::split(dialled);
    let sent: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    let writing = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (read, ()) = tokio::join!(from.read_to_end(&mut got), writing);
    read.unwrap();
    assert!(got == sent);
    echo.await.unwrap();

    let Err(ActionError::Failed(failure)) = pair.service.dial("127.0.0.1", port).await else {
        panic!("no one listens any longer")
    };
    assert_eq!(failure.code, FailureCode::ConnectionRefused);
    let Err(ActionError::Failed(failure)) = pair.service.dial("example.org", 80).await else {
        panic!("a name")
    };
    assert_eq!(failure.code, FailureCode::Invalid);
}

#[tokio::test]
async fn the_job_is_signalled_and_its_ending_told_in_detail() {
    let script = "trap 'exit 5' HUP; echo ready; while :; do sleep 0.05; done";
    let (log, mut reader) = tokio::io::duplex(1000);
    let pair = Pair::with(&AGENT, MetaService::builder(["sh", "-c", script]).log(log), None).await;
    let mut ready = [0; 6];
    reader.read_exact(&mut ready).await.unwrap();
    pair.service.signal(1).await.unwrap();
    let ending = pair.service.result().await.ending.unwrap();
    assert_eq!((ending.reason, ending.exit_code), (Reason::Exited, Some(5)));
    assert!(ending.cpu_user_ms.is_some() && ending.peak_memory.unwrap() > 100_000);
    let Err(ActionError::Failed(failure)) = pair.service.signal(1).await else {
        panic!("it has ended")
    };
    assert_eq!(failure.code, FailureCode::NotRunning);
    // A detached command ends with the job. No other one can start after it.
    let failure = refused(sh(&pair, "true").spawn_detached().await);
    assert_eq!(failure.code, FailureCode::NotRunning);
}

#[tokio::test]
async fn a_job_killed_for_its_time_says_so() {
    let pair = Pair::idle(&AGENT).await;
    pair.service.time_out().await.unwrap();
    let result = pair.service.result().await;
    assert_eq!(result.ending.unwrap().reason, Reason::TimedOut);
}

#[tokio::test]
async fn a_job_may_have_a_terminal() {
    let (log, mut reader) = tokio::io::duplex(1000);
    let size = TerminalSize { columns: 101, rows: 33 };
    let script = "test -t 0 && test -t 1 && test -t 2 && stty size && exit 3";
    let builder = MetaService::builder(["sh", "-c", script]).log(log).terminal(size);
    let pair = Pair::with(&AGENT, builder, None).await;
    let result = pair.service.result().await;
    assert_eq!(result.status(), 3);
    pair.service.shutdown().await.unwrap();
    drop(pair);
    let mut log = String::new();
    reader.read_to_string(&mut log).await.unwrap();
    assert_eq!(log, "33 101\r\n");
}

#[tokio::test]
async fn the_guest_tells_what_it_is_doing() {
    let pair = Pair::idle(&AGENT).await;
    let mut lines = pair.service.stats(Some(Duration::from_millis(100))).await.unwrap();
    let first = lines.try_next().await.unwrap().unwrap();
    let second = lines.try_next().await.unwrap().unwrap();
    assert!(first.cpus > 0 && first.memory_total > 0);
    assert!(second.uptime_ms >= first.uptime_ms);
    let mut once = pair.service.stats(None).await.unwrap();
    assert!(once.try_next().await.unwrap().is_some());
    assert!(once.try_next().await.unwrap().is_none());
}
