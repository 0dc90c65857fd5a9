//! How the command is started: what the job needs of its agent, and what happens without it.

use metaservice::{Need, Reason};
use serde_json::json;

use super::*;

const ANNOUNCED: &str = r#"{"version":"9","capabilities":["exec","launch"]}"#;
const OLDER: &str = r#"{"version":"0","capabilities":["exec","large-exec"]}"#;

async fn fetch(
    service: &MetaService,
    announced: Option<&str>,
) -> metaservice_testing::guest::Answer {
    let header = announced.map(|announced| ("Metaservice-Agent", announced));
    let headers: Vec<_> = header.into_iter().collect();
    guest(service).request("GET", "/engine/v1/execute", &headers, b"").await
}

#[tokio::test]
async fn an_agent_that_can_launch_gets_all_of_it() {
    let builder = MetaService::builder(["true"]).workdir("/src").user("1:2");
    let service = builder.entrypoint(["env"]).set_hostname("h").start().unwrap();
    let answer = fetch(&service, Some(ANNOUNCED)).await;
    let expected = json!({
        "env": {}, "command": ["true"], "workdir": "/src", "user": "1:2", "entrypoint": ["env"],
        "hostname": "h",
    });
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert!(service.is_fetched() && service.try_result().is_none());
}

#[tokio::test]
async fn a_command_does_not_start_with_an_agent_that_cannot_do_what_it_needs() {
    for announced in [None, Some(OLDER), Some("not JSON")] {
        let service = MetaService::builder(["true"]).workdir("/src").start().unwrap();
        let refused = fetch(&service, announced).await.error();
        assert_eq!(refused, (409, "ResourceConflict".to_owned()));
        let result = service.result().await;
        let ending = result.ending.clone().unwrap();
        assert_eq!((result.success, result.status()), (false, 125));
        assert_eq!(ending.reason, Reason::Unsupported);
        let message = ending.failure.unwrap().message;
        assert!(message.contains("cannot set the working directory"), "{message}");
        assert!(!service.is_fetched());
        // The job has ended, for every agent.
        assert_eq!(fetch(&service, Some(ANNOUNCED)).await.status, 409);
        let failed = guest(&service).request("PUT", "/engine/v1/failed", &[], b"").await;
        assert_eq!(failed.status, 200);
    }
}

#[tokio::test]
async fn an_agent_may_say_that_it_cannot_run_the_command() {
    let service = service();
    let result =
        r#"{"reason":"unsupported","failure":{"code":"other","message":"no\u001b[2J mount"}}"#;
    let header = [("Metaservice-Result", result)];
    let failed = guest(&service).request("PUT", "/engine/v1/failed", &header, b"").await;
    assert_eq!(failed.status, 200);
    let result = service.result().await;
    assert_eq!(result.status(), 125);
    let ending = result.ending.unwrap();
    assert_eq!(ending.reason, Reason::Unsupported);
    assert_eq!(ending.failure.unwrap().message, "no[2J mount");
}

#[tokio::test]
async fn a_command_with_stdin_does_not_start_with_an_agent_that_cannot_feed_it() {
    let able = r#"{"version":"9","capabilities":["attach"]}"#;
    let service = MetaService::builder(["cat"]).stdin(true).start().unwrap();
    let expected = json!({ "env": {}, "command": ["cat"], "stdin": true });
    assert_eq!(fetch(&service, Some(able)).await.json(), expected);
    for announced in [None, Some(OLDER)] {
        let service = MetaService::builder(["cat"]).stdin(true).start().unwrap();
        assert_eq!(fetch(&service, announced).await.status, 409);
        let result = service.result().await;
        let message = result.ending.clone().unwrap().failure.unwrap().message;
        assert!(message.contains("cannot feed the stdin"), "{message}");
        assert_eq!(result.status(), 125);
    }
}

#[tokio::test]
async fn another_process_does_not_end_a_job_that_an_agent_has_fetched() {
    let service = MetaService::builder(["true"]).workdir("/src").start().unwrap();
    assert_eq!(fetch(&service, Some(ANNOUNCED)).await.status, 200);
    assert_eq!(fetch(&service, None).await.status, 409);
    assert_eq!(service.try_result(), None);
    assert_eq!(fetch(&service, Some(ANNOUNCED)).await.status, 200);
}

#[tokio::test]
async fn what_the_command_goes_without_is_told() {
    let service = MetaService::builder(["true"]).set_hostname("h").start().unwrap();
    let answer = fetch(&service, None).await;
    assert_eq!(answer.status, 200);
    assert_eq!(service.without().await, [Need::Hostname]);
}
