//! How the command is started: in which directory, as which user, behind which entry point.

use metaservice::{Builder, Destination, Ending, FailureCode, MetaService, Reason};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use metaservice_testing::pair::Pair;
use metaservice_testing::wait::TIMEOUT;

use crate::AGENT;

/// Runs a job to its end, and returns its log and how it ended.
async fn run(builder: Builder) -> (String, Ending) {
    let (log, mut reader) = tokio::io::duplex(64 * 1024);
    let pair = Pair::with(&AGENT, builder.log(log), None).await;
    let result = timeout(TIMEOUT, pair.service.result()).await.unwrap();
    pair.service.shutdown().await.unwrap();
    drop(pair);
    let mut text = String::new();
    timeout(TIMEOUT, reader.read_to_string(&mut text)).await.unwrap().unwrap();
    (text, result.ending.unwrap())
}

#[tokio::test]
async fn a_command_has_the_directory_the_user_and_the_entry_point_of_its_job() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
    let builder = MetaService::builder(["-c", "pwd; id -u; id -g; echo $HOME"]);
    let builder = builder.entrypoint(["sh"]).workdir(path.to_str().unwrap()).user("4711:4712");
    let (log, ending) = run(builder).await;
    assert_eq!(log, format!("{}\n4711\n4712\n/\n", path.display()));
    assert!(ending.is_success());
}

#[tokio::test]
async fn other_commands_and_files_start_where_the_job_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
    std::fs::write(path.join("file"), "content").unwrap();
    let builder = MetaService::builder(["sleep", "1000"]).entrypoint(Vec::<String>::new());
    let builder = builder.workdir(path.to_str().unwrap()).user("4711:4712");
    let pair = Pair::with(&AGENT, builder, None).await;
    let output = pair.service.exec(["sh", "-c", "pwd; id -u"]).output().await.unwrap();
    let expected = format!("{}\n4711\n", path.display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    let mut content = String::new();
    let mut reading = pair.service.read("file").open().await.unwrap();
    reading.read_to_string(&mut content).await.unwrap();
    assert_eq!(content, "content");
}

#[tokio::test]
async fn a_held_command_starts_when_its_files_are_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let (log, mut reader) = tokio::io::duplex(64 * 1024);
    let builder = MetaService::builder(["cat", file.to_str().unwrap()]).hold().log(log);
    let mut pair = Pair::with(&AGENT, builder, None).await;
    // The agent is there for everything else, also after a restart.
    assert!(pair.service.exec(["true"]).output().await.unwrap().status.success());
    pair.restart_agent();
    let write = || {
        let to = Destination::file(file.to_str().unwrap());
        pair.service.write(to, &b"content"[..])
    };
    // The killed agent may have read the first one.
    if write().await.is_err() {
        write().await.unwrap();
    }
    assert_eq!(pair.service.try_result(), None);
    pair.service.start_command().await.unwrap();
    let result = timeout(TIMEOUT, pair.service.result()).await.unwrap();
    assert!(result.success, "{result:?} {}", pair.describe());
    // A repeated `start` does not start it again.
    pair.service.start_command().await.unwrap();
    pair.service.shutdown().await.unwrap();
    drop(pair);
    let mut text = String::new();
    timeout(TIMEOUT, reader.read_to_string(&mut text)).await.unwrap().unwrap();
    assert_eq!(text, "content");
}

#[tokio::test]
async fn a_held_command_that_is_killed_never_starts() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let builder = MetaService::builder(["touch", file.to_str().unwrap()]).hold();
    let pair = Pair::with(&AGENT, builder, None).await;
    pair.service.kill().await.unwrap();
    let result = timeout(TIMEOUT, pair.service.result()).await.unwrap();
    assert_eq!(result.ending.unwrap().reason, Reason::Killed);
    pair.service.start_command().await.unwrap();
    assert!(!file.exists());
}

#[tokio::test]
async fn a_directory_or_a_user_that_is_missing_is_named() {
    let builder = || MetaService::builder(["echo", "ran"]);
    let cases = [
        (builder().workdir("/no/such"), "cannot enter the directory '/no/such'"),
        (builder().workdir("/dev/null"), "cannot enter the directory '/dev/null'"),
        (builder().user("no-such-user"), "there is no user 'no-such-user'"),
        (builder().user("0:no-such"), "there is no group 'no-such'"),
    ];
    for (builder, says) in cases {
        let (log, ending) = run(builder).await;
        assert!(log.contains(says) && !log.contains("ran\n"), "{log}");
        assert_eq!((ending.reason, ending.shell_status()), (Reason::NotExecutable, 126));
        let failure = ending.failure.unwrap();
        assert_eq!(failure.code, FailureCode::NotFound);
        assert!(failure.message.contains(says), "{failure}");
    }
}
