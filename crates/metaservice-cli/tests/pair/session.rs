//! Another process in the guest, which can reach the service and is not the agent.

use std::time::Duration;

use metaservice::{MetaService, SessionMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::peers::Pair;

const PATIENCE: Duration = Duration::from_secs(30);

/// The status of a request by hand.
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
async fn nobody_but_the_agent_speaks_for_the_job_and_it_goes_on_after_a_restart() {
    for mode in [SessionMode::Claimed, SessionMode::Required] {
        let (log, mut reader) = tokio::io::duplex(1000);
        let builder = MetaService::builder(["sh", "-c", "echo $TOKEN; sleep 1; echo $PLAIN"])
            .session(mode)
            .secret("TOKEN", "t0ken")
            .env("PLAIN", "plain")
            .log(log);
        let mut pair = Pair::with(builder, None).await;
        let mut first = [0; 6];
        timeout(PATIENCE, reader.read_exact(&mut first)).await.unwrap().unwrap();
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
        let result = timeout(PATIENCE, pair.service.result()).await.unwrap();
        assert!(result.success, "{result:?}");
        pair.service.shutdown().await.unwrap();
        drop(pair);
        let mut rest = String::new();
        // The writing end goes with the service.
        let _ = timeout(Duration::from_secs(1), reader.read_to_string(&mut rest)).await;
        assert_eq!(rest, "plain\n");
    }
}

#[tokio::test]
async fn what_is_secret_is_in_no_argument_and_in_nothing_that_others_can_read() {
    let builder = MetaService::builder(["sleep", "100"]).secret("TOKEN", "t0ken-of-mine");
    let pair = Pair::with(builder, None).await;
    let shell = pair.service.exec_shell(["sh", "-c", "echo $TOKEN"], false).await.unwrap();
    assert!(timeout(PATIENCE, shell.wait()).await.unwrap().unwrap());
    let state = pair.folder.path().join("state");
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
    assert!(!pair.describe_said().contains(secret));
}
