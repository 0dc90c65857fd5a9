//! Each bound of what a guest may take: at it, and one past it.
#![allow(clippy::unwrap_used, missing_docs)]

mod guest;

use std::io;
use std::time::Duration;

use guest::{announce, dial, get, head, parse, poll, post, reply_to, request, start};
use metaservice::{ActionError, ArtifactError, Bounds, Form, ListFolderError, MetaService};
use metaservice_protocol::transfer::Encoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

fn bounded(set: impl FnOnce(&mut Bounds)) -> MetaService {
    let mut bounds = Bounds::default();
    set(&mut bounds);
    MetaService::builder(["true"]).bounds(bounds).start().unwrap()
}

const PING: &[u8] = b"GET /engine/v1/ping HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn one_connection_more_waits_for_another_to_end() {
    let service = bounded(|bounds| bounds.connections = 2);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(service.clone().serve(listener));
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(PING).await.unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
    };
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    ask(&mut first).await;
    ask(&mut second).await;
    let mut third = TcpStream::connect(address).await.unwrap();
    assert!(timeout(Duration::from_millis(200), ask(&mut third)).await.is_err());
    drop(first);
    let mut byte = [0];
    timeout(Duration::from_secs(10), third.read_exact(&mut byte)).await.unwrap().unwrap();
}

/// The status of a request with so many headers, or with one of so many bytes.
async fn status(service: &MetaService, count: usize, length: usize) -> u16 {
    let mut request = b"GET /engine/v1/ping HTTP/1.1\r\n".to_vec();
    for n in 0..count {
        let value = "v".repeat(if n == 0 { length } else { 1 });
        request.extend(format!("h{n}: {value}\r\n").bytes());
    }
    request.extend(b"\r\n");
    let (mut reader, mut writer) = tokio::io::split(dial(service));
    let sending = tokio::spawn(async move {
        // A refusal may come before the end.
        let _ = writer.write_all(&request).await;
    });
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let count = reader.read_buf(&mut answer).await.unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
    }
    sending.abort();
    parse(&answer).status
}

#[tokio::test]
async fn heads_are_bounded_in_number_and_length() {
    let service = bounded(|bounds| bounds.headers = 5);
    assert_eq!((status(&service, 5, 1).await, status(&service, 6, 1).await), (200, 431));
    let service = bounded(|bounds| bounds.head = 20_000);
    let rest = PING.len() - b"Host: a\r\n".len() + b"h0: \r\n".len();
    assert_eq!(status(&service, 1, 19_900 - rest).await, 200);
    assert_eq!(status(&service, 1, 30_000).await, 431);
}

/// Slowly is not stalled: the head has a time as a whole, a body only between two bytes.
#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_and_no_more() {
    let service = bounded(|bounds| bounds.head_time = Duration::from_secs(3));
    for (pause, served) in [(50, true), (100, false)] {
        let mut stream = dial(&service);
        let begun = Instant::now();
        let dripped = async {
            for byte in PING {
                stream.write_all(&[*byte]).await?;
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            let mut answer = [0; 15];
            stream.read_exact(&mut answer).await
        };
        assert_eq!(dripped.await.is_ok(), served);
        assert!(begun.elapsed() < Duration::from_secs(4));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_cut_when_it_stands_still_and_not_when_it_is_slow() {
    let service = bounded(|bounds| bounds.stall = Duration::from_secs(3));
    for (pause, arrives) in [(2_900, true), (3_100, false)] {
        let fetched = start(&service, async |service| service.get_artifact("/f").await);
        for _ in 0..if arrives { 1 } else { 3 } {
            let action = poll(&service).await;
            let mut stream = dial(&service);
            let length = [("Content-Length", "5"), ("Connection", "close")];
            stream.write_all(&head("POST", &reply_to(&action), &length)).await.unwrap();
            for byte in b"bytes" {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
        }
        assert_eq!(fetched.await.unwrap().is_ok(), arrives);
    }
}

#[tokio::test]
async fn a_listing_is_bounded_in_bytes_and_names() {
    let json = |names: usize| {
        format!(r#"{{"files":[{}],"notFound":false}}"#, vec!["\"/f\""; names].join(","))
    };
    let bytes = json(10).len();
    let of_bytes = bounded(|bounds| bounds.list = bytes);
    let of_names = bounded(|bounds| bounds.names = 10);
    for service in [of_bytes, of_names] {
        let listing = start(&service, async |service| service.list_folder("/").await);
        let target = reply_to(&poll(&service).await);
        let content = [("Content-Type", "application/json")];
        let refused = request(&service, "POST", &target, &content, json(11).as_bytes()).await;
        assert_eq!(refused.refusal(), (400, "InvalidPayload".to_owned()));
        let taken = request(&service, "POST", &target, &content, json(10).as_bytes()).await;
        assert_eq!(taken.status, 200);
        assert_eq!(listing.await.unwrap().unwrap().len(), 10);
        assert!(!matches!(get(&service, "/engine/v1/ping").await.status, 400..));
    }
}

#[tokio::test]
async fn one_stream_more_is_refused_until_another_ends() {
    let service = bounded(|bounds| bounds.streams = 1);
    let opening = start(&service, async |service| service.exec_shell(["cat"], false).await);
    let action = poll(&service).await;
    // One that is only wanted counts too.
    let refused = service.exec_shell(["cat"], false).await.unwrap_err();
    assert!(matches!(refused, ActionError::TooMany(1)), "{refused}");
    let socket = guest::dial_shell(&service, &action).await;
    let shell = opening.await.unwrap().unwrap();
    assert!(service.exec_shell(["cat"], false).await.is_err());
    shell.abort();
    drop((shell, socket));
    let opened = async {
        loop {
            let trying = start(&service, async |service| service.exec_shell(["cat"], false).await);
            tokio::select! {
                action = poll(&service) => break (trying, action),
                () = tokio::time::sleep(Duration::from_millis(20)) => trying.abort(),
            }
        }
    };
    timeout(Duration::from_secs(10), opened).await.unwrap();
}

#[tokio::test]
async fn files_share_the_temporary_storage() {
    let service = bounded(|bounds| {
        bounds.artifact = 70;
        bounds.storage = 100;
    });
    let fetch = async |length: usize| {
        let fetched = start(&service, async |service| service.get_artifact("/f").await);
        let target = reply_to(&poll(&service).await);
        post(&service, &target, &vec![1; length]).await;
        fetched.await.unwrap()
    };
    let kept = fetch(70).await.unwrap();
    assert!(matches!(fetch(71).await, Err(ArtifactError::Storage(_))));
    assert!(matches!(fetch(31).await, Err(ArtifactError::Storage(_))));
    assert_eq!(fetch(30).await.unwrap().len(), 30);
    assert_eq!(fetch(30).await.unwrap().len(), 30);
    drop(kept);
    assert_eq!(fetch(70).await.unwrap().len(), 70);
}

/// Reads from a guest that says `head` and sends `length` bytes; how many have come.
async fn read(
    service: &MetaService,
    offset: u64,
    head: &str,
    length: usize,
) -> Result<usize, io::ErrorKind> {
    let reading = start(service, async move |service| {
        let opened = match offset {
            0 => service.read("/f", Form::Any).await,
            offset => service.read_range("/f", offset, Some(50)).await,
        };
        let mut all = Vec::new();
        opened.map_err(io::Error::from)?.read_to_end(&mut all).await
    });
    let target = reply_to(&announce(service).await);
    let mut encoder = Encoder::new();
    let mut body = encoder.data(vec![1; length].into()).concat();
    body.extend(encoder.end());
    let head = [("Metaservice-File", head)];
    let (read, _) = tokio::join!(reading, request(service, "POST", &target, &head, &body));
    read.unwrap().map_err(|error| error.kind())
}

#[tokio::test]
async fn what_is_read_is_bounded_and_a_file_is_no_longer_than_it_says() {
    let service = bounded(|bounds| bounds.artifact = 70);
    let large = Err(io::ErrorKind::FileTooLarge);
    let invalid = Err(io::ErrorKind::InvalidData);
    let sized = r#"{"form":"file","size":SIZE,"mode":420,"mtimeNs":0}"#;
    for (offset, size, length, outcome) in [
        (0, "70", 70, Ok(70)),
        (0, "71", 71, large),
        (0, "9", 9, Ok(9)),
        (0, "9", 10, invalid),
        (2, "9", 7, Ok(7)),
        (2, "9", 8, invalid),
        (2, "99", 50, Ok(50)),
        (2, "99", 51, invalid),
    ] {
        let head = sized.replace("SIZE", size);
        let read = read(&service, offset, &head, length).await;
        assert_eq!(read, outcome, "{length} of {size} from {offset}");
    }
    for head in [
        r#"{"form":"file","mode":420,"mtimeNs":0}"#,
        r#"{"form":"archive","mode":420,"mtimeNs":0}"#,
    ] {
        assert_eq!(read(&service, 0, head, 70).await, Ok(70), "{head}");
        assert_eq!(read(&service, 0, head, 71).await, large, "{head}");
    }
}

#[tokio::test]
async fn what_is_bounded_for_one_leaves_the_rest_served() {
    let service = bounded(|bounds| bounds.list = 10);
    let listing = start(&service, async |service| service.list_folder("/").await);
    let target = reply_to(&poll(&service).await);
    let content = [("Content-Type", "application/json")];
    request(&service, "POST", &target, &content, &[b' '; 1000]).await;
    assert_eq!(get(&service, "/engine/v1/execute").await.status, 200);
    service.shutdown().await.unwrap();
    assert!(matches!(listing.await.unwrap(), Err(ListFolderError::Action(_))));
}
