//! The end-points and codes of version 1, over byte streams, against a guest by hand.

use metaservice::MetaService;
use metaservice_testing::guest::{Answer, head, reply_to};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{guest, start};

#[tokio::test]
async fn execute_gives_command_and_environment() {
    let service = MetaService::builder(["echo", "a b"]).env("K", "v=1").start().unwrap();
    let answer = guest(&service).get("/engine/v1/execute").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.json(), json!({"env": {"K": "v=1"}, "command": ["echo", "a b"]}));
    service.fetched().await;
}

#[tokio::test]
async fn ping_is_empty() {
    let answer = guest(&crate::service()).get("/engine/v1/ping").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[tokio::test]
async fn anything_else_is_no_end_point() {
    let service = crate::service();
    for path in ["/", "/engine/v1", "/engine/v1/poll/", "/engine/v1/Poll", "/engine/v2/poll"] {
        let refusal = guest(&service).get(path).await.error();
        assert_eq!(refusal, (404, "NoSuchEndPoint".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_refused_everywhere() {
    let service = crate::service();
    for (method, name) in [
        ("POST", "execute"),
        ("PUT", "log"),
        ("POST", "success"),
        ("GET", "failed"),
        ("PUT", "poll"),
        ("DELETE", "ping"),
    ] {
        let answer = guest(&service).request(method, &format!("/engine/v1/{name}"), &[], b"").await;
        assert_eq!(answer.error(), (405, "MethodNotAllowed".to_owned()), "{method} {name}");
    }
}

/// The id comes first, as in the original.
#[tokio::test]
async fn a_wrong_method_counts_for_a_pending_action_alone() {
    let service = crate::service();
    let fetching = start(&service, async |s: MetaService| s.list("/d").files().await);
    let pending = guest(&service).poll().await;
    let pending = pending["id"].as_str().unwrap();
    let unknown = "0".repeat(32);
    for name in ["reply", "list-folder"] {
        for method in ["PUT", "DELETE", "PATCH", "GET"] {
            let ask = async |query: &str| {
                let target = format!("/engine/v1/{name}{query}");
                guest(&service).request(method, &target, &[], b"").await.error()
            };
            for query in ["", "?id=", &format!("?id={unknown}")] {
                let refusal = ask(query).await;
                assert_eq!(refusal, (400, "UnknownActionId".to_owned()), "{method} {name}{query}");
            }
            let refusal = ask(&format!("?id={pending}")).await;
            assert_eq!(refusal, (405, "MethodNotAllowed".to_owned()), "{method} {name}");
        }
    }
    fetching.abort();
}

/// The status of each of `count` answers to a body of 5 MB that is written before anything is read.
async fn statuses(service: &MetaService, request: &str, count: usize) -> Vec<Option<u16>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(service.clone().serve(listener));
    let request = request.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut body = request.into_bytes();
        for _ in 0..80 {
            body.extend_from_slice(b"10000\r\n");
            body.resize(body.len() + 0x10000, b'x');
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        let ask = |_| {
            let mut stream = std::net::TcpStream::connect(address).ok()?;
            stream.write_all(&body).ok()?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).ok()?;
            let answer = Answer::parse(&answer);
            assert_eq!(answer.headers["connection"], "close");
            Some(answer.status)
        };
        (0..count).map(ask).collect()
    });
    let statuses = asked.await.unwrap();
    serving.abort();
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_peer_that_writes_before_it_reads() {
    let (sink, reader) = tokio::io::duplex(16);
    drop(reader);
    let service = MetaService::builder(["true"]).log(sink).start().unwrap();
    assert_eq!(guest(&service).request("PUT", "/engine/v1/success", &[], b"").await.status, 200);
    for (line, status) in [
        ("POST /engine/v1/reply?id=none", 400),
        ("POST /engine/v1/list-folder?id=none", 400),
        ("POST /engine/v1/log", 500),
        ("PUT /engine/v1/failed", 409),
        ("PUT /engine/v1/success", 200),
        ("POST /engine/v1/poll", 405),
        ("POST /nowhere", 404),
        ("GET /engine/v1/poll", 200),
    ] {
        // Polls are answered at once, with the body behind them.
        service.stop_pollers();
        let head = format!("{line} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(statuses(&service, &head, 8).await, vec![Some(status); 8], "{line}");
    }
    assert_eq!(guest(&service).claim("mine").await.status, 200);
    let head = "POST /engine/v1/log HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(statuses(&service, head, 8).await, vec![Some(401); 8]);
}

/// What still comes behind a refusal is bounded.
#[tokio::test(start_paused = true)]
async fn a_body_behind_a_refusal_is_read_for_a_bounded_time() {
    let service = crate::service();
    let mut stream = guest(&service).dial();
    let chunked = [("Transfer-Encoding", "chunked")];
    stream.write_all(&head("POST", "/engine/v1/reply?id=none", &chunked)).await.unwrap();
    let begun = tokio::time::Instant::now();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let dripping = tokio::spawn(async move {
        while writer.write_all(b"1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    });
    let mut answer = Vec::new();
    reader.read_to_end(&mut answer).await.unwrap();
    assert_eq!(Answer::parse(&answer).status, 400);
    assert_eq!(begun.elapsed().as_secs(), 0);
    dripping.await.unwrap();
    assert!((10..=11).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

/// Neither a connection that says nothing nor one between two requests holds the service; a poll
/// that is on its way at the shutdown has its answer.
#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_no_silent_connection_and_answers_late_polls() {
    let service = crate::service();
    let (silent, spare) = (guest(&service).dial(), guest(&service).dial());
    let mut spares = vec![silent, spare];
    for path in ["poll", "ping"] {
        let mut used = guest(&service).dial();
        if path == "poll" {
            let killing = start(&service, async |s: MetaService| s.kill().await);
            used.write_all(&head("GET", "/engine/v1/poll", &[])).await.unwrap();
            Answer::read(&mut used).await;
            killing.abort();
        } else {
            used.write_all(&head("GET", "/engine/v1/ping", &[])).await.unwrap();
            Answer::read(&mut used).await;
        }
        spares.push(used);
    }
    let begun = tokio::time::Instant::now();
    service.shutdown().await.unwrap();
    let silent = spares.remove(0);
    for mut spare in spares {
        spare.write_all(&head("GET", "/engine/v1/poll", &[])).await.unwrap();
        let mut answer = Vec::new();
        spare.read_to_end(&mut answer).await.unwrap();
        let answer = Answer::parse(&answer);
        assert_eq!((answer.status, &answer.json()["type"]), (200, &"none".into()));
        assert_eq!(answer.headers["connection"], "close");
    }
    let mut silent = silent;
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    assert!(begun.elapsed() < std::time::Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_head_of_poll_takes_no_action_along() {
    let service = crate::service();
    let killing = tokio::spawn({
        let service = service.clone();
        async move { service.kill().await }
    });
    assert_eq!(guest(&service).request("HEAD", "/engine/v1/poll", &[], b"").await.status, 405);
    let action = guest(&service).poll().await;
    assert_eq!(guest(&service).post(&reply_to(&action), b"").await.status, 200);
    killing.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_result_is_set_once_and_idempotent() {
    let (sender, mut results) = tokio::sync::mpsc::unbounded_channel();
    let service = MetaService::builder(["true"])
        .on_result(move |result| sender.send(result).unwrap())
        .start()
        .unwrap();
    let put = async |name: &str| {
        let headers = [("Metaservice-Result", r#"{"reason":"exited","exitCode":3}"#)];
        guest(&service).request("PUT", &format!("/engine/v1/{name}"), &headers, b"").await
    };
    assert_eq!(service.try_result(), None);
    assert_eq!(put("failed").await.status, 200);
    assert_eq!(put("failed").await.status, 200);
    assert_eq!(put("success").await.error(), (409, "ResourceConflict".to_owned()));
    let result = service.result().await;
    assert_eq!((result.success, result.status()), (false, 3));
    assert_eq!(results.recv().await, Some(result));
    drop(service);
    assert_eq!(results.recv().await, None, "the callback ran more than once");
}

#[tokio::test]
async fn a_callback_that_blocks_does_not_block_the_answer() {
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let service = MetaService::builder(["true"])
        .on_result(move |_| assert!(blocked.recv().is_err()))
        .start()
        .unwrap();
    assert_eq!(guest(&service).request("PUT", "/engine/v1/success", &[], b"").await.status, 200);
    assert!(service.result().await.success);
    drop(release);
}

#[tokio::test]
async fn each_byte_of_the_log_is_visible_at_once() {
    let (sink, mut reader) = tokio::io::duplex(1024);
    let service = MetaService::builder(["true"]).log(sink).start().unwrap();
    let mut stream = guest(&service).dial();
    let chunked = [("Transfer-Encoding", "chunked"), ("Connection", "close")];
    stream.write_all(&head("POST", "/engine/v1/log", &chunked)).await.unwrap();
    for byte in [b'a', b'\xff', b'\n'] {
        stream.write_all(&[b'1', b'\r', b'\n', byte, b'\r', b'\n']).await.unwrap();
        assert_eq!(reader.read_u8().await.unwrap(), byte);
    }
    // A second log while the first is open.
    assert_eq!(guest(&service).post("/engine/v1/log", b"second").await.status, 200);
    let mut second = [0; 6];
    reader.read_exact(&mut second).await.unwrap();
    assert_eq!(&second, b"second");
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = Answer::parse(&answer);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[tokio::test]
async fn what_came_before_a_cut_is_in_the_log() {
    let (sink, mut reader) = tokio::io::duplex(4);
    let service = MetaService::builder(["true"]).log(sink).start().unwrap();
    let mut stream = guest(&service).dial();
    let length = [("Content-Length", "1000")];
    stream.write_all(&head("POST", "/engine/v1/log", &length)).await.unwrap();
    stream.write_all(b"0123456789").await.unwrap();
    let mut first = [0; 2];
    reader.read_exact(&mut first).await.unwrap();
    drop(stream);
    let mut rest = [0; 8];
    reader.read_exact(&mut rest).await.unwrap();
    assert_eq!((&first, &rest), (b"01", b"23456789"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_log_holds_the_guest_back() {
    let (sink, mut reader) = tokio::io::duplex(16);
    let service = MetaService::builder(["true"]).log(sink).start().unwrap();
    let body: Vec<u8> = (0..8 * 1024 * 1024u32).map(|n| n.to_le_bytes()[1]).collect();
    let mut stream = guest(&service).dial();
    let length = body.len().to_string();
    let headers = [("Content-Length", length.as_str()), ("Connection", "close")];
    stream.write_all(&head("POST", "/engine/v1/log", &headers)).await.unwrap();
    let (mut from_service, mut to_service) = tokio::io::split(stream);
    let (sent, progress) = tokio::sync::watch::channel(0);
    let writing = tokio::spawn({
        let body = body.clone();
        async move {
            for chunk in body.chunks(4096) {
                to_service.write_all(chunk).await.unwrap();
                sent.send_modify(|sent| *sent += chunk.len());
            }
            to_service
        }
    });
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    let held = *progress.borrow();
    assert!(held < 4 * 1024 * 1024, "{held} bytes were accepted while the log was not read");
    let mut log = vec![0; body.len()];
    reader.read_exact(&mut log).await.unwrap();
    assert!(log == body, "the log differs from what was sent");
    drop(writing.await.unwrap());
    let mut answer = Vec::new();
    from_service.read_to_end(&mut answer).await.unwrap();
    assert_eq!(Answer::parse(&answer).status, 200);
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_an_internal_error() {
    let (sink, reader) = tokio::io::duplex(16);
    drop(reader);
    let service = MetaService::builder(["true"]).log(sink).start().unwrap();
    for _ in 0..2 {
        let answer = guest(&service).post("/engine/v1/log", b"lost").await;
        assert_eq!(answer.error(), (500, "InternalError".to_owned()));
    }
    assert_eq!(guest(&service).get("/engine/v1/ping").await.status, 200);
    assert!(service.shutdown().await.is_err());
}

#[tokio::test]
async fn a_temporary_folder_that_is_none_is_told_at_the_start() {
    let started = MetaService::builder(["true"]).temporary_directory("/proc/nowhere").start();
    let error = started.err().unwrap().to_string();
    assert_eq!(error, "cannot use /proc/nowhere for temporary files");
}

#[tokio::test]
async fn a_real_socket_serves_until_shutdown() {
    let service = crate::service();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(service.clone().serve(listener));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(&head("GET", "/engine/v1/ping", &[("Connection", "close")])).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(Answer::parse(&answer).status, 200);
    service.shutdown().await.unwrap();
    serving.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_answer_under_way_survives_the_shutdown() {
    let service = crate::service();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(service.clone().serve(listener));
    // A worker that ends as soon as it has the result.
    let ending = tokio::spawn(async move {
        service.result().await;
        service.shutdown().await.unwrap();
        serving.await.unwrap();
    });
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(&head("PUT", "/engine/v1/success", &[])).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(Answer::parse(&answer).status, 200);
    ending.await.unwrap();
}
