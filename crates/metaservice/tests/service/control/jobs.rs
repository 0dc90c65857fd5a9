//! All jobs behind one socket: what goes through to a job, and back.

use std::path::PathBuf;

use futures_util::{SinkExt, StreamExt};
use metaservice::control::{Jobs, serve_jobs};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_tungstenite::tungstenite::Message;

use super::{Controlled, controlled};
use crate::guest;

/// One job, by the name `job`.
struct One(PathBuf);

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Jobs for One {
    async fn list(&self, all: bool) -> Result<serde_json::Value, Failed> {
        Ok(serde_json::json!([{ "name": "job", "all": all }]))
    }

    async fn socket(&self, name: &str) -> Result<PathBuf, Failed> {
        if name == "job" { Ok(self.0.clone()) } else { Err(format!("no {name}").into()) }
    }
}

/// A job, and the socket of all jobs.
fn jobs() -> (Controlled, PathBuf) {
    let controlled = controlled();
    let socket = controlled._directory.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(serve_jobs(One(controlled.client.socket().to_owned()), listener));
    (controlled, socket)
}

#[tokio::test]
async fn a_websocket_goes_through_to_its_end() {
    let (Controlled { service, .. }, socket) = &jobs();
    let stream = UnixStream::connect(socket).await.unwrap();
    let target = "ws://all/v1/jobs/job/shell?command=[%22cat%22]";
    let dialling = tokio_tungstenite::client_async(target, stream);
    let guest = async {
        let action = guest(service).poll().await;
        assert_eq!(action["command"], serde_json::json!(["cat"]));
        guest(service).dial_shell(&action).await
    };
    let (client, mut guest) = tokio::join!(dialling, guest);
    let (mut client, _) = client.unwrap();
    for round in 0..100u8 {
        client.send(Message::binary(vec![0, 0, round])).await.unwrap();
        assert_eq!(guest.next().await.unwrap().unwrap(), Message::binary(vec![0, 0, round]));
        guest.send(Message::binary(vec![0, 1, round])).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(vec![0, 1, round]));
    }
    guest.send(Message::binary(vec![5, 0])).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(vec![5, 0]));
    assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
    assert!(matches!(guest.next().await, Some(Ok(Message::Close(_))) | None));
}

/// Neither a body in a request nor one in a response is collected before it is forwarded.
#[tokio::test]
async fn a_client_that_goes_is_gone_for_the_job_too() {
    let (Controlled { service, .. }, socket) = &jobs();
    let stream = UnixStream::connect(socket).await.unwrap();
    let target = "ws://all/v1/jobs/job/shell?command=[%22cat%22]";
    let guest = async {
        let action = guest(service).poll().await;
        guest(service).dial_shell(&action).await
    };
    let (client, mut guest) = tokio::join!(tokio_tungstenite::client_async(target, stream), guest);
    drop(client.unwrap());
    while let Some(Ok(_)) = guest.next().await {}

    // A log that is followed arrives while the job runs.
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = "GET /v1/jobs/job/log?follow=true HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    let mut reading = async |text: &str| {
        while !String::from_utf8_lossy(&seen).contains(text) {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "the answer ended");
        }
    };
    reading("200 OK").await;
    crate::guest(service).request("POST", "/engine/v1/log", &[], b"first line").await;
    reading("first line").await;
}

#[tokio::test]
async fn only_the_list_and_known_jobs_are_served() {
    let (_controlled, socket) = &jobs();
    let client = metaservice::control::Client::new(socket);
    let get = async |target: &str| super::raw(&client, "GET", target, "").await;
    let (status, list) = get("/v1/jobs?all=true").await;
    assert_eq!((status, list), (200, serde_json::json!([{ "name": "job", "all": true }])));
    assert_eq!(get("/v1/jobs/job/job").await.1["name"], "job");
    let (status, error) = get("/v1/jobs/other/job").await;
    assert_eq!((status, &error["message"]), (404, &"no other".into()));
    assert_eq!(super::raw(&client, "POST", "/v1/jobs", "").await.0, 405);
    drop(std::fs::remove_file(_controlled.client.socket()));
    let (status, error) = get("/v1/jobs/job/job").await;
    assert_eq!((status, &error["code"]), (502, &"Transport".into()));
}
