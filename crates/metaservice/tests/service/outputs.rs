//! Stdout and stderr of the command as two outputs of the log.

use metaservice::{LogFrom, LogOutput, Need};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::*;

const ANNOUNCED: &str = r#"{"version":"9","capabilities":["exec","streams"]}"#;
const OLDER: &str = r#"{"version":"0","capabilities":["exec","large-exec"]}"#;

async fn fetch(service: &MetaService, announced: Option<&str>) -> Value {
    let header = announced.map(|announced| ("Metaservice-Agent", announced));
    let headers: Vec<_> = header.into_iter().collect();
    guest(service).request("GET", "/engine/v1/execute", &headers, b"").await.json()
}

async fn post(service: &MetaService, place: &str, bytes: &[u8]) -> u16 {
    let place = [("Metaservice-Log", place)];
    guest(service).request("POST", "/engine/v1/log", &place, bytes).await.status
}

#[tokio::test]
async fn only_an_agent_that_can_separate_outputs_is_asked_to() {
    let merged = json!({ "env": {}, "command": ["true"] });
    let separate = json!({ "env": {}, "command": ["true"], "separate": true });
    let service = MetaService::builder(["true"]).separate(true).start().unwrap();
    assert_eq!(fetch(&service, Some(ANNOUNCED)).await, separate);
    let service = MetaService::builder(["true"]).start().unwrap();
    assert_eq!(fetch(&service, Some(ANNOUNCED)).await, merged);
    for announced in [None, Some(OLDER)] {
        let service = MetaService::builder(["true"]).separate(true).start().unwrap();
        assert_eq!(fetch(&service, announced).await, merged);
        assert_eq!(service.without().await, [Need::Streams]);
    }
}

#[tokio::test]
async fn each_output_goes_to_its_sink_and_a_log_of_version_1_is_stdout() {
    let (stdout, mut from_stdout) = tokio::io::duplex(1024);
    let (stderr, mut from_stderr) = tokio::io::duplex(1024);
    let builder = MetaService::builder(["true"]).separate(true).keep_log(1 << 20);
    let service = builder.log(stdout).log_stderr(stderr).start().unwrap();
    assert_eq!(post(&service, r#"{"stream":"s","offset":0}"#, b"one ").await, 200);
    let place = r#"{"stream":"e","offset":0,"output":"stderr"}"#;
    assert_eq!(post(&service, place, b"two ").await, 200);
    // It was not confirmed, and is sent again.
    assert_eq!(post(&service, place, b"two three ").await, 200);
    assert_eq!(guest(&service).post("/engine/v1/log", b"four").await.status, 200);
    let unknown = r#"{"stream":"x","offset":0,"output":"else"}"#;
    assert_eq!(post(&service, unknown, b"five").await, 400);
    service.shutdown().await.unwrap();
    let mut reader = service.log_reader(LogFrom::Start, false).await.unwrap().unwrap();
    let mut log = Vec::new();
    while let Some(segment) = reader.next_segment().await.unwrap() {
        assert!(segment.time.is_some());
        log.push((segment.output, String::from_utf8(segment.bytes.to_vec()).unwrap()));
    }
    let [out, err] = LogOutput::ALL;
    let joined = |wanted| {
        log.iter()
            .filter(|(output, _)| *output == wanted)
            .map(|(_, text)| &**text)
            .collect::<String>()
    };
    assert_eq!((joined(out), joined(err)), ("one four".to_owned(), "two three ".to_owned()));
    drop(service);
    let (mut shown, mut errors) = (String::new(), String::new());
    from_stdout.read_to_string(&mut shown).await.unwrap();
    from_stderr.read_to_string(&mut errors).await.unwrap();
    assert_eq!((shown, errors), (joined(out), joined(err)));
}

/// The state directory of a service that did not know outputs is continued by one that does.
#[tokio::test]
async fn a_state_without_an_index_is_continued() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let start = async |separate| loop {
        let builder = MetaService::builder(["true"]).separate(separate).keep_log(1 << 20);
        match builder.state(&state).start() {
            Ok(service) => break service,
            // The connections of the service before have not ended yet.
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let service = start(false).await;
    assert_eq!(post(&service, r#"{"stream":"s","offset":0}"#, b"old ").await, 200);
    service.shutdown().await.unwrap();
    drop(service);
    std::fs::remove_file(state.join("log.index")).unwrap();
    let service = start(true).await;
    let place = r#"{"stream":"e","offset":0,"output":"stderr"}"#;
    assert_eq!(post(&service, place, b"new").await, 200);
    let mut reader = service.log_reader(LogFrom::Start, false).await.unwrap().unwrap();
    let first = reader.next_segment().await.unwrap().unwrap();
    let old = (LogOutput::Stdout, None, &b"old "[..]);
    assert_eq!((first.output, first.time, &first.bytes[..]), old);
    let second = reader.next_segment().await.unwrap().unwrap();
    assert_eq!((second.output, &second.bytes[..]), (LogOutput::Stderr, &b"new"[..]));
}
