//! What a machine without an agent is given, over HTTP: the agent, its script, and a cloud's
//! metadata.

use metaservice::{Cloud, MetaService, SessionMode};

use crate::guest;

fn service(cloud: Cloud) -> MetaService {
    let builder = MetaService::builder(["true"]).session(SessionMode::Required);
    builder.cloud(cloud).agent("linux-x86_64", b"\x7fELF".as_slice()).start().unwrap()
}

const HOSTNAME: &str = "/latest/meta-data/hostname";

#[tokio::test]
async fn a_service_of_version_1_has_none_of_it() {
    let service = crate::service();
    for path in [HOSTNAME, "/latest/api/token", "/engine/v1/agent/install", "/nocloud/meta-data"] {
        for method in ["GET", "PUT"] {
            let refusal = guest(&service).request(method, path, &[], b"").await.error();
            assert_eq!(refusal, (404, "NoSuchEndPoint".to_owned()), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn an_agent_alone_makes_no_cloud() {
    let service = MetaService::builder(["true"]).agent("linux-x86_64", "agent").start().unwrap();
    let agent = guest(&service).get("/engine/v1/agent/linux-x86_64").await;
    assert_eq!((agent.status, agent.body.as_slice()), (200, b"agent".as_slice()));
    let script = guest(&service).get("/engine/v1/agent/install").await;
    assert!(script.body.starts_with(b"#!/bin/sh\n"));
    for path in [HOSTNAME, "/engine/v1/agent/linux-sparc", "/engine/v1/agent/"] {
        assert_eq!(guest(&service).get(path).await.status, 404, "{path}");
    }
    let refusal =
        guest(&service).request("POST", "/engine/v1/agent/install", &[], b"").await.error();
    assert_eq!(refusal, (405, "MethodNotAllowed".to_owned()));
}

#[tokio::test]
async fn no_session_is_needed_for_it() {
    let service = service(Cloud::new("builder"));
    let claim = [("Metaservice-Claim", "word")];
    assert_eq!(guest(&service).request("PUT", "/engine/v1/session", &claim, b"").await.status, 200);
    assert_eq!(guest(&service).get("/engine/v1/execute").await.status, 401);
    let hostname = guest(&service).get(HOSTNAME).await;
    assert_eq!((hostname.status, hostname.body.as_slice()), (200, b"builder".as_slice()));
    assert_eq!(hostname.headers["content-type"], "text/plain");
    let agent = guest(&service).get("/engine/v1/agent/linux-x86_64").await;
    assert_eq!(agent.body, b"\x7fELF");
}

#[tokio::test]
async fn a_token_is_asked_for_and_shown() {
    let service = service(Cloud::new("builder"));
    let life = ("X-aws-ec2-metadata-token-ttl-seconds", "60");
    let token = guest(&service).request("PUT", "/latest/api/token", &[life], b"").await;
    assert_eq!(
        (token.status, token.headers["x-aws-ec2-metadata-token-ttl-seconds"].as_str()),
        (200, "60")
    );
    let token = String::from_utf8(token.body).unwrap();
    for (shown, status) in [(token.as_str(), 200), ("another", 401), ("", 401), ("\u{fe}", 401)] {
        let headers = [("X-aws-ec2-metadata-token", shown)];
        let answer = guest(&service).request("GET", HOSTNAME, &headers, b"").await;
        assert_eq!(answer.status, status, "{shown:?}");
    }
    assert_eq!(guest(&service).request("PUT", "/latest/api/token", &[], b"").await.status, 400);
}

#[tokio::test]
async fn nothing_is_told_to_those_who_ask_for_others() {
    let service = service(Cloud::new("builder"));
    for path in [HOSTNAME, "/latest/api/token", "/engine/v1/agent/install"] {
        let method = if path.ends_with("token") { "PUT" } else { "GET" };
        let life = ("X-aws-ec2-metadata-token-ttl-seconds", "60");
        let headers = [life, ("X-Forwarded-For", "192.0.2.1")];
        let refusal = guest(&service).request(method, path, &headers, b"").await.error();
        assert_eq!(refusal, (403, "Forbidden".to_owned()), "{path}");
    }
}

#[test]
fn an_instance_outlives_its_service_where_its_state_does() {
    let directory = tempfile::tempdir().unwrap();
    let instance = async || {
        let builder = MetaService::builder(["true"]).state(directory.path().join("state"));
        let service = builder.cloud(Cloud::new("builder")).start().unwrap();
        let answer = guest(&service).get("/latest/meta-data/instance-id").await;
        service.shutdown().await.unwrap();
        String::from_utf8(answer.body).unwrap()
    };
    // The end of a runtime ends connections that are still open, as a process's end does.
    let id = || tokio::runtime::Runtime::new().unwrap().block_on(instance());
    let (first, second) = (id(), id());
    assert!(first.starts_with("i-"), "{first}");
    assert_eq!(first, second);
}
