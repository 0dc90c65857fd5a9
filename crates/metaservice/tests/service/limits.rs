//! Each limit of what a guest may use: at the limit, and one past it.

use std::io;
use std::time::Duration;

use metaservice::{ActionError, ExecError, Form, Limits, ListError, MetaService, ReadError};
use metaservice_protocol::transfer::Encoder;
use metaservice_testing::guest::{Answer, head, reply_to};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use crate::{guest, start};

fn limited(set: impl FnOnce(&mut Limits)) -> MetaService {
    let mut limits = Limits::default();
    set(&mut limits);
    MetaService::builder(["true"]).limits(limits).start().unwrap()
}

const PING: &[u8] = b"GET /engine/v1/ping HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn one_connection_more_waits_for_another_to_end() {
    let service = limited(|limits| limits.connections = 2);
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

/// The status of a request with so many headers.
async fn headers(service: &MetaService, count: usize) -> u16 {
    let headers: String = (0..count).map(|n| format!("h{n}: v\r\n")).collect();
    status(service, &format!("GET /engine/v1/ping HTTP/1.1\r\n{headers}\r\n")).await
}

async fn status(service: &MetaService, request: &str) -> u16 {
    let request = request.to_owned().into_bytes();
    let (mut reader, mut writer) = tokio::io::split(guest(service).dial());
    let sending = tokio::spawn(async move {
        // A refusal may come before the end.
        let _ = writer.write_all(&request).await;
    });
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = reader.read_buf(&mut answer).await.unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
    }
    sending.abort();
    Answer::parse(&answer).status
}

#[tokio::test]
async fn heads_are_bounded_in_number_and_length() {
    let service = limited(|limits| limits.headers = 5);
    assert_eq!((headers(&service, 5).await, headers(&service, 6).await), (200, 431));
    for length in [300, 3_000, 20_000] {
        let service = limited(|limits| limits.head = length);
        // Polls are read by other code; the last method is none that a poll is asked by.
        for (line, served) in [("GET /engine/v1/ping", 200), ("POST /engine/v1/poll", 405)] {
            let line = format!("{line} HTTP/1.1\r\nh: ");
            for (more, expected) in [(0, served), (1, 431), (2, 431), (9_000, 431)] {
                assert_eq!(status(&service, &long(&line, length + more)).await, expected);
            }
        }
        let poll = long("GET /engine/v1/poll HTTP/1.1\r\nh: ", length + 1);
        assert_eq!(status(&service, &poll).await, 431);
    }
}

/// A request of so many bytes that begins so.
fn long(line: &str, length: usize) -> String {
    let value = "v".repeat(length - line.len() - "\r\n\r\n".len());
    format!("{line}{value}\r\n\r\n")
}

#[tokio::test]
async fn a_request_line_is_limited() {
    let service = limited(|limits| limits.line = 100);
    for (more, expected) in [(0, 200), (1, 414), (5_000, 414)] {
        let query = "q".repeat(100 + more - "/engine/v1/ping?".len());
        let request = format!("GET /engine/v1/ping?{query} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(status(&service, &request).await, expected, "{more}");
    }
    let host = "h".repeat(100 - "http:///engine/v1/ping".len());
    for (host, expected) in [(host.clone(), 200), (host + "h", 414)] {
        let request = format!("GET http://{host}/engine/v1/ping HTTP/1.1\r\n\r\n");
        assert_eq!(status(&service, &request).await, expected, "{host}");
    }
}

/// A guest that sends requests and reads no response is not waited for.
#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_cut_and_a_slow_one_is_not() {
    let service = limited(|limits| limits.stall = Duration::from_secs(3));
    assert_eq!(guest(&service).claim("mine").await.status, 200);
    let poll = b"GET /engine/v1/poll HTTP/1.1\r\nHost: a\r\n\r\n";
    for request in [&poll[..], PING] {
        // More answers than there is room for on the way; the polls are refused.
        let asked = request.repeat(200);
        for (pause, cut) in [(Duration::from_secs(4), true), (Duration::from_secs(2), false)] {
            let (near, far) = tokio::io::duplex(512);
            let serving = tokio::spawn({
                let service = service.clone();
                async move { service.serve_connection(far).await }
            });
            let (mut reader, mut writer) = tokio::io::split(near);
            let asked = asked.clone();
            let asking = tokio::spawn(async move { writer.write_all(&asked).await });
            for _ in 0..20 {
                tokio::time::sleep(pause).await;
                // One that is cut may be read to its end.
                let _ = reader.read(&mut [0; 100]).await;
            }
            assert_eq!(serving.is_finished(), cut, "{pause:?}");
            asking.abort();
            serving.abort();
        }
    }
}

/// Slowly is not stalled: the head has a time as a whole, a body only between two bytes.
#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_and_no_more() {
    let service = limited(|limits| limits.head_time = Duration::from_secs(3));
    for (pause, served) in [(50, true), (100, false)] {
        let mut stream = guest(&service).dial();
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
    let service = limited(|limits| limits.stall = Duration::from_secs(3));
    for (pause, arrives) in [(2_900, true), (3_100, false)] {
        let fetched = start(&service, async |service| service.read("/f").spool().await);
        for _ in 0..if arrives { 1 } else { 3 } {
            let action = guest(&service).poll().await;
            let mut stream = guest(&service).dial();
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
    let of_bytes = limited(|limits| limits.list = bytes);
    let of_names = limited(|limits| limits.names = 10);
    for service in [of_bytes, of_names] {
        let content = [("Content-Type", "application/json")];
        let listing = start(&service, async |service| service.list("/").files().await);
        let target = reply_to(&guest(&service).poll().await);
        let refused = guest(&service).request("POST", &target, &content, json(11).as_bytes()).await;
        assert_eq!(refused.error(), (400, "InvalidPayload".to_owned()));
        let error = listing.await.unwrap().unwrap_err();
        assert!(matches!(error, ListError::Action(ActionError::Invalid(_))), "{error}");
        let listing = start(&service, async |service| service.list("/").files().await);
        let target = reply_to(&guest(&service).poll().await);
        let taken = guest(&service).request("POST", &target, &content, json(10).as_bytes()).await;
        assert_eq!(taken.status, 200);
        assert_eq!(listing.await.unwrap().unwrap().len(), 10);
        assert!(!matches!(guest(&service).get("/engine/v1/ping").await.status, 400..));
    }
}

#[tokio::test]
async fn one_stream_more_is_refused_until_another_ends() {
    let service = limited(|limits| limits.streams = 1);
    let opening = start(&service, async |service| service.exec(["cat"]).spawn().await);
    let action = guest(&service).poll().await;
    // One that is only wanted counts too.
    let refused = service.exec(["cat"]).spawn().await.unwrap_err();
    assert!(matches!(refused, ExecError::Action(ActionError::TooManyStreams(1))), "{refused}");
    let socket = guest(&service).dial_shell(&action).await;
    let shell = opening.await.unwrap().unwrap();
    assert!(service.exec(["cat"]).spawn().await.is_err());
    shell.abort();
    drop((shell, socket));
    let opened = async {
        loop {
            let trying = start(&service, async |service| service.exec(["cat"]).spawn().await);
            let agent = guest(&service);
            tokio::select! {
                action = agent.poll() => break (trying, action),
                () = tokio::time::sleep(Duration::from_millis(20)) => trying.abort(),
            }
        }
    };
    timeout(Duration::from_secs(10), opened).await.unwrap();
}

#[tokio::test]
async fn files_share_the_temporary_storage() {
    let service = limited(|limits| {
        limits.artifact = 70;
        limits.storage = 100;
    });
    let fetch = async |length: usize| {
        let fetched = start(&service, async |service| service.read("/f").spool().await);
        let target = reply_to(&guest(&service).poll().await);
        guest(&service).post(&target, &vec![1; length]).await;
        fetched.await.unwrap()
    };
    let kept = fetch(70).await.unwrap();
    assert!(matches!(fetch(71).await, Err(ReadError::TooLarge(70))));
    assert!(matches!(fetch(31).await, Err(ReadError::Storage(_))));
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
            0 => service.read("/f").form(Form::Any).open().await,
            offset => service.read("/f").range(offset, Some(50)).open().await,
        };
        let mut all = Vec::new();
        opened.map_err(io::Error::from)?.read_to_end(&mut all).await
    });
    let target = reply_to(&guest(service).poll_as_agent().await);
    let mut encoder = Encoder::new();
    let mut body = encoder.data(vec![1; length].into()).concat();
    body.extend(encoder.end());
    let head = [("Metaservice-File", head)];
    let agent = guest(service);
    let (read, _) = tokio::join!(reading, agent.request("POST", &target, &head, &body));
    read.unwrap().map_err(|error| error.kind())
}

#[tokio::test]
async fn what_is_read_is_bounded_and_a_file_is_no_longer_than_it_says() {
    let service = limited(|limits| limits.artifact = 70);
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
    let service = limited(|limits| limits.list = 10);
    let listing = start(&service, async |service| service.list("/").files().await);
    let target = reply_to(&guest(&service).poll().await);
    let content = [("Content-Type", "application/json")];
    guest(&service).request("POST", &target, &content, &[b' '; 1000]).await;
    assert_eq!(guest(&service).get("/engine/v1/execute").await.status, 200);
    service.shutdown().await.unwrap();
    assert!(matches!(listing.await.unwrap(), Err(ListError::Action(_))));
}
