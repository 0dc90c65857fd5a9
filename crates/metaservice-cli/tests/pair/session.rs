//! Another process in the guest, which can reach the service but is not the agent.

use std::time::Duration;

use metaservice::{Builder, MetaService, SessionMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use metaservice_testing::pair::{Pair, spawn_agent};
use metaservice_testing::wait::TIMEOUT;

use crate::AGENT;

/// Sends a request, and returns its status.
async fn ask(pair: &Pair, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(pair.address).await.unwrap();
    let request = format!(
        "{method} /engine/v1/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn only_the_agent_speaks_for_the_job_and_it_continues_after_a_restart() {
    for mode in [SessionMode::Claimed, SessionMode::Required] {
        let (log, mut reader) = tokio::io::duplex(1000);
        let builder = MetaService::builder(["sh", "-c", "echo $TOKEN; sleep 1; echo $PLAIN"])
            .session(mode)
            .secret("TOKEN", "t0ken")
            .env("PLAIN", "plain")
            .log(log);
        let mut pair = Pair::with(&AGENT, builder, None).await;
        let mut first = [0; 6];
        timeout(TIMEOUT, reader.read_exact(&mut first)).await.unwrap().unwrap();
        assert_eq!(&first, b"t0ken\n");
        for (method, path) in [
            ("GET", "execute"),
            ("POST", "log"),
            ("PUT", "failed"),
            ("GET", "poll"),
            ("POST", "reply?id=1"),
        ] {
            assert_eq!(ask(&pair, method, path).await, "401", "{path}");
        }
        pair.restart_agent();
        let result = timeout(TIMEOUT, pair.service.result()).await.unwrap();
        assert!(result.success, "{result:?}");
        pair.service.shutdown().await.unwrap();
        drop(pair);
        let mut rest = String::new();
        // The service closes the write end.
        let _ = timeout(Duration::from_secs(1), reader.read_to_string(&mut rest)).await;
        assert_eq!(rest, "plain\n");
    }
}

#[tokio::test]
async fn what_is_secret_is_in_no_argument_and_in_nothing_that_others_can_read() {
    let builder = MetaService::builder(["sleep", "100"]).secret("TOKEN", "t0ken-of-mine");
    let pair = Pair::with(&AGENT, builder, None).await;
    let shell = pair.service.exec(["sh", "-c", "echo $TOKEN"]).spawn().await.unwrap();
    assert!(timeout(TIMEOUT, shell.wait()).await.unwrap().unwrap().success());
    let state = pair.directory.path().join("state");
    let mode = |path: &std::path::Path| {
        std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions())
    };
    assert_eq!(mode(&state) & 0o077, 0);
    let session = std::fs::read_to_string(state.join("session")).unwrap();
    let session: serde_json::Value = serde_json::from_str(&session).unwrap();
    let secret = session["secret"].as_str().unwrap();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(!line.contains(secret) && !line.contains("t0ken-of-mine"), "{line}");
    }
    assert!(!pair.messages().contains(secret));
}

/// The service is away for longer than its agent waits. The same service accepts the agent again,
/// and the command runs once. A new service has no result, so the command runs again.
#[tokio::test]
async fn an_agent_that_has_left_belongs_to_its_service_when_that_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (kept, runs) = (at("kept"), at("runs"));
    let line = format!("echo $TOKEN >> {}", runs.display());
    let builder = || {
        let builder = MetaService::builder(["sh", "-c", &line]);
        builder.secret("TOKEN", "t0ken").keep_log(1000)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let begin = async |builder: Builder, listener| {
        let service = builder.start().unwrap();
        let serving = tokio::spawn(service.clone().serve(listener));
        (service, serving)
    };
    let result = async |service: &MetaService| {
        assert!(timeout(TIMEOUT, service.result()).await.unwrap().success);
    };

    let (service, serving) = begin(builder().state(&kept), listener).await;
    let mut agent =
        spawn_agent(AGENT.as_str(), address, directory.path(), &["--host-timeout", "1"]);
    result(&service).await;
    service.shutdown().await.unwrap();
    serving.await.unwrap();
    drop(service);
    let left = tokio::task::spawn_blocking(move || agent.wait().unwrap());
    assert!(timeout(TIMEOUT, left).await.unwrap().unwrap().success());

    let mut agent =
        spawn_agent(AGENT.as_str(), address, directory.path(), &["--host-timeout", "1"]);
    let listener = TcpListener::bind(address).await.unwrap();
    let (service, serving) = begin(builder().state(&kept), listener).await;
    result(&service).await;
    let path = runs.display().to_string();
    let artifact = timeout(TIMEOUT, service.read(path).spool()).await.unwrap().unwrap();
    assert_eq!(artifact.len(), 6, "it was run once, with its secret");
    service.shutdown().await.unwrap();
    serving.await.unwrap();
    drop(service);
    let left = tokio::task::spawn_blocking(move || agent.wait().unwrap());
    assert!(timeout(TIMEOUT, left).await.unwrap().unwrap().success());

    let mut agent =
        spawn_agent(AGENT.as_str(), address, directory.path(), &["--host-timeout", "1"]);
    let listener = TcpListener::bind(address).await.unwrap();
    let (service, serving) = begin(builder(), listener).await;
    result(&service).await;
    assert_eq!(std::fs::read_to_string(&runs).unwrap(), "t0ken\nt0ken\n");
    service.shutdown().await.unwrap();
    serving.await.unwrap();
    let left = tokio::task::spawn_blocking(move || agent.wait().unwrap());
    assert!(timeout(TIMEOUT, left).await.unwrap().unwrap().success());
}
