//! A machine without a job, and its requests after a restore from a snapshot.

use std::time::{Duration, SystemTime};

use metaservice::{Cloud, IdleService, MetaService};
use metaservice_testing::guest::{Answer, head};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::guest;

const RENEWS: &str = r#"{"version":"0.1.0","capabilities":["exec","renew"]}"#;
const OLDER: &str = r#"{"version":"0.1.0","capabilities":["exec"]}"#;
const AGENT: &str = "Metaservice-Agent";
const SERVICE: &str = "metaservice-service";

/// A service of a machine without a job, at an address.
async fn prepare(preparation: &IdleService) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(preparation.clone().serve(listener));
    address
}

async fn ask(
    address: std::net::SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut all = vec![("Connection", "close"), ("Content-Length", "0")];
    all.extend(headers);
    stream.write_all(&head(method, path, &all)).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    Answer::parse(&answer)
}

#[tokio::test]
async fn a_machine_without_a_job_is_told_to_wait_if_it_knows_how() {
    let preparation = IdleService::new();
    let address = prepare(&preparation).await;
    let execute =
        |headers: &'static [(&str, &str)]| ask(address, "GET", "/engine/v1/execute", headers);
    for headers in [&[][..], &[(AGENT, OLDER)]] {
        let answer = execute(headers).await;
        assert_eq!(answer.error(), (503, "NoJob".to_owned()));
        assert!(!answer.headers.contains_key(SERVICE), "as a service of version 1");
        let renewal = ask(address, "GET", "/engine/v1/renewal", headers).await;
        assert_eq!(renewal.error(), (404, "NoSuchEndPoint".to_owned()));
    }
    let answer = execute(&[(AGENT, RENEWS)]).await;
    assert_eq!(answer.error(), (503, "NoJob".to_owned()));
    let service: serde_json::Value = serde_json::from_str(&answer.headers[SERVICE]).unwrap();
    assert_eq!(service["renewal"], true);

    // No agent waits yet. Then one waits, and gets no response.
    let waits = tokio::time::timeout(Duration::from_millis(100), preparation.waiting()).await;
    assert!(waits.is_err());
    let mut waiting = TcpStream::connect(address).await.unwrap();
    let asked = head("GET", "/engine/v1/renewal", &[(AGENT, RENEWS)]);
    waiting.write_all(&asked).await.unwrap();
    preparation.waiting().await;
    let heard = tokio::time::timeout(Duration::from_millis(100), waiting.read_u8()).await;
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test]
async fn nothing_of_a_job_is_served_where_there_is_none() {
    let address = prepare(&IdleService::new()).await;
    assert_eq!(ask(address, "GET", "/engine/v1/ping", &[]).await.status, 200);
    for (method, path) in [
        ("POST", "log"),
        ("GET", "poll"),
        ("POST", "reply?id=x"),
        ("POST", "list-folder?id=x"),
        ("PUT", "success"),
        ("PUT", "failed"),
    ] {
        let answer = ask(address, method, &format!("/engine/v1/{path}"), &[]).await;
        assert_eq!(answer.error(), (503, "NoJob".to_owned()), "{path}");
    }
    for (method, path, status) in [
        ("PUT", "/engine/v1/session", 404),
        ("GET", "/engine/v1/agent/install", 404),
        ("GET", "/latest/meta-data/instance-id", 404),
        ("GET", "/", 404),
        ("DELETE", "/engine/v1/execute", 405),
    ] {
        assert_eq!(ask(address, method, path, &[]).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_cloud_image_without_a_job_gets_its_agent() {
    let cloud = Cloud::new("idle");
    let address = prepare(&IdleService::cloud(&cloud, "linux-x86_64", "the agent")).await;
    let get = |path: &'static str| ask(address, "GET", path, &[]);
    let id = get("/latest/meta-data/instance-id").await;
    assert_eq!(id.body, cloud.instance_id().as_bytes());
    assert_eq!(get("/engine/v1/agent/linux-x86_64").await.body, b"the agent");
    assert!(get("/latest/user-data").await.body.starts_with(b"#!/bin/sh"));
    assert_eq!(get("/engine/v1/execute").await.error().0, 503);
}

#[tokio::test]
async fn a_renewal_is_new_each_time_and_over_once_the_job_is_somebodys() {
    let service = MetaService::builder(["true"]).hostname("job-1").start().unwrap();
    let renewal = |headers: &'static [(&str, &str)]| {
        let service = service.clone();
        async move { guest(&service).request("GET", "/engine/v1/renewal", headers, b"").await }
    };
    for headers in [&[][..], &[(AGENT, OLDER)]] {
        assert_eq!(renewal(headers).await.error(), (404, "NoSuchEndPoint".to_owned()));
    }
    let (one, other) =
        (renewal(&[(AGENT, RENEWS)]).await.json(), renewal(&[(AGENT, RENEWS)]).await.json());
    assert_eq!(one["hostname"], "job-1");
    let random = |renewal: &serde_json::Value| renewal["random"].as_str().unwrap().to_owned();
    assert!(random(&one).len() == 128 && random(&one) != random(&other));
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let told = Duration::from_nanos(one["timeNs"].as_u64().unwrap());
    assert!(now.abs_diff(told) < Duration::from_secs(60), "{told:?}");

    assert_eq!(guest(&service).claim("first").await.status, 200);
    assert_eq!(renewal(&[(AGENT, RENEWS)]).await.error().0, 404);
    // Its machine was given up: the next one begins as if there had been none.
    assert!(service.release());
    assert_eq!(renewal(&[(AGENT, RENEWS)]).await.status, 200);
    assert_eq!(guest(&service).claim("second").await.status, 200);
    assert_eq!(guest(&service).claim("first").await.status, 409);
}

#[tokio::test]
async fn a_fetched_job_is_not_released() {
    let service = crate::service();
    assert_eq!(guest(&service).request("GET", "/engine/v1/execute", &[], b"").await.status, 200);
    assert!(!service.release());
}
