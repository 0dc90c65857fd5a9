//! Sessions, origins, and limits.

use futures_util::{StreamExt, TryStreamExt};
use metaservice::{Contact, Limits, MetaService, SessionMode};
use metaservice_testing::guest::{AGENT, Answer, head, reply_to};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::{guest, start};

const SESSION: &str = "Metaservice-Session";
const EVERYTHING: [(&str, &str); 7] = [
    ("GET", "execute"),
    ("POST", "log"),
    ("GET", "poll"),
    ("POST", "reply?id=x"),
    ("POST", "list-folder?id=x"),
    ("PUT", "success"),
    ("PUT", "failed"),
];

#[tokio::test(start_paused = true)]
async fn a_claimed_job_is_its_claimants_alone() {
    let service = crate::service();
    assert_eq!(guest(&service).get("/engine/v1/execute").await.status, 200);
    let secret = guest(&service).claim("mine").await.json()["secret"].as_str().unwrap().to_owned();
    assert!(secret.len() >= 64);
    assert_eq!(guest(&service).claim("mine").await.json()["secret"], secret);
    assert_eq!(guest(&service).claim("yours").await.error(), (409, "ResourceConflict".to_owned()));
    let wrong = "0".repeat(secret.len());
    for (method, path) in EVERYTHING {
        let path = format!("/engine/v1/{path}");
        for headers in [&[][..], &[(SESSION, wrong.as_str())], &[(SESSION, "")]] {
            let refusal = guest(&service).request(method, &path, headers, b"forged").await.error();
            assert_eq!(refusal, (401, "SessionRequired".to_owned()), "{path}");
        }
        let own = guest(&service).request(method, &path, &[(SESSION, &secret)], b"").await;
        assert_ne!(own.status, 401, "{path}");
    }
    assert_eq!(guest(&service).get("/engine/v1/ping").await.status, 200);
    assert!(service.try_result().unwrap().success, "only the result of the owner counts");
}

/// What a stranger has begun before the agent was there is over with the agent's claim.
#[tokio::test]
async fn what_began_before_the_claim_ends_with_it() {
    let (sink, mut written) = tokio::io::duplex(1024);
    let service = MetaService::builder(["true"]).log(sink).start().unwrap();
    let begin = async |head: Vec<u8>| {
        let mut stream = guest(&service).dial();
        stream.write_all(&head).await.unwrap();
        stream
    };
    let chunked = [("Transfer-Encoding", "chunked"), ("Connection", "close")];
    let mut log = begin(head("POST", "/engine/v1/log", &chunked)).await;
    log.write_all(b"6\r\nbefore\r\n").await.unwrap();
    let mut before = [0; 6];
    written.read_exact(&mut before).await.unwrap();
    // A stranger may have taken actions, too, as a guest of version 1 does.
    let exec = start(&service, async |service| service.exec(["id"]).spawn().await);
    let mut stream = guest(&service).dial_shell(&guest(&service).poll().await).await;
    let shell = exec.await.unwrap().unwrap();
    let fetch = start(&service, async |service| service.read("/f").spool().await);
    let reply = head("POST", &reply_to(&guest(&service).poll().await), &chunked);
    let mut reply = begin(reply).await;
    reply.write_all(b"6\r\nforged\r\n").await.unwrap();
    let read = start(&service, async |service| service.read("/f").open().await);
    let file = ("Metaservice-File", r#"{"form":"file","mode":420,"mtimeNs":1}"#);
    let target = reply_to(&guest(&service).poll_as_agent().await);
    let mut stolen = begin(head("POST", &target, &[chunked[0], chunked[1], file])).await;
    let mut read = read.await.unwrap().unwrap();
    let mut poll = begin(head("GET", "/engine/v1/poll", &[("Connection", "close")])).await;
    // It is served when the other end of its connection waits for an action.
    tokio::task::yield_now().await;

    let secret = guest(&service).claim("agent").await.json()["secret"].as_str().unwrap().to_owned();
    for stream in [&mut log, &mut reply, &mut poll] {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(Answer::parse(&answer).error(), (401, "SessionRequired".to_owned()));
    }
    let _ = log.write_all(b"6\r\nforged\r\n0\r\n\r\n").await;
    assert!(shell.wait().await.is_err());
    assert!(!matches!(stream.next().await, Some(Ok(Message::Binary(_)))));
    // A whole file, as its own agent would send it.
    let mut encoder = metaservice_protocol::transfer::Encoder::new();
    let mut forged = encoder.data(bytes::Bytes::from_static(b"forged")).concat();
    forged.extend_from_slice(&encoder.end());
    let head = format!("{:x}\r\n", forged.len()).into_bytes();
    let _ = stolen.write_all(&[&head[..], &forged, b"\r\n0\r\n\r\n"].concat()).await;
    let late = tokio::time::timeout(std::time::Duration::from_millis(300), read.try_next()).await;
    assert!(!matches!(late, Ok(Ok(Some(_)))), "{late:?}");
    fetch.abort();
    let own = [(SESSION, secret.as_str())];
    assert_eq!(
        guest(&service).request("POST", "/engine/v1/log", &own, b"behind").await.status,
        200
    );
    let mut behind = [0; 6];
    written.read_exact(&mut behind).await.unwrap();
    assert_eq!(&behind, b"behind", "nothing of a stranger's in between");
}

#[tokio::test]
async fn a_required_session_serves_nothing_before_and_secrets_require_one() {
    let required = MetaService::builder(["true"]).session(SessionMode::Required);
    let secret = MetaService::builder(["true"]).secret("TOKEN", "t0ken");
    for builder in [required, secret] {
        let service = builder.env("A", "b").start().unwrap();
        for (method, path) in EVERYTHING {
            let answer =
                guest(&service).request(method, &format!("/engine/v1/{path}"), &[], b"").await;
            assert_eq!(answer.error(), (401, "SessionRequired".to_owned()), "{path}");
        }
        // A newer agent gets the service's announcement with the error.
        let announced = [("Metaservice-Agent", AGENT)];
        let answer = guest(&service).request("GET", "/engine/v1/execute", &announced, b"").await;
        assert_eq!(answer.status, 401);
        assert!(answer.headers["metaservice-service"].contains("\"session\":true"));
    }
}

#[tokio::test]
async fn secrets_are_in_the_claimants_answer_and_nowhere_else() {
    let service = MetaService::builder(["true"]).secret("TOKEN", "t0ken").start().unwrap();
    for _ in 0..2 {
        assert_eq!(guest(&service).claim("mine").await.json()["env"]["TOKEN"], "t0ken");
    }
    let secret = guest(&service).claim("mine").await.json()["secret"].as_str().unwrap().to_owned();
    let own = [(SESSION, secret.as_str())];
    let execute = guest(&service).request("GET", "/engine/v1/execute", &own, b"").await;
    assert_eq!(execute.json()["env"], serde_json::json!({}));
    assert!(guest(&service).claim("mine").await.json().get("env").is_none(), "it is given once");
}

#[tokio::test]
async fn without_sessions_there_is_nothing_to_claim_and_without_a_claim_nothing_is_there() {
    let service = MetaService::builder(["true"]).session(SessionMode::Off).start().unwrap();
    assert_eq!(guest(&service).claim("mine").await.error(), (404, "NoSuchEndPoint".to_owned()));
    let service = crate::service();
    let answer = guest(&service).request("PUT", "/engine/v1/session", &[], b"").await;
    assert_eq!(answer.error(), (404, "NoSuchEndPoint".to_owned()));
    let refusal = guest(&service).claim("a b").await.error();
    assert_eq!(refusal, (400, "InvalidPayload".to_owned()));
}

#[tokio::test]
async fn what_somebody_else_makes_the_guest_ask_for_is_refused() {
    let service = crate::service();
    let forwarded = [("X-Forwarded-For", "1.2.3.4")];
    let refusal =
        guest(&service).request("GET", "/engine/v1/execute", &forwarded, b"").await.error();
    assert_eq!(refusal, (403, "Forbidden".to_owned()));
    let (mut reader, mut writer) = tokio::io::split(guest(&service).dial());
    let foreign =
        b"GET /engine/v1/execute HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut writer, foreign).await.unwrap();
    let mut answer = Vec::new();
    reader.read_to_end(&mut answer).await.unwrap();
    assert_eq!(Answer::parse(&answer).error(), (403, "Forbidden".to_owned()));
}

#[tokio::test]
async fn a_log_is_accepted_up_to_its_limit() {
    for (length, allowed) in [(1000usize, true), (1001, false)] {
        let (log, mut reader) = tokio::io::duplex(10_000);
        let mut limits = Limits::default();
        limits.log = 1000;
        let service = MetaService::builder(["true"]).log(log).limits(limits).start().unwrap();
        let answer = guest(&service).post("/engine/v1/log", &vec![b'x'; length]).await;
        assert_eq!(answer.status, if allowed { 200 } else { 500 });
        if !allowed {
            let error = service.log_failed().await;
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert_eq!(cause, "it is longer than 1000 bytes");
        }
        drop(service);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 1000, "the bytes within the limit are kept");
    }
}

#[tokio::test]
async fn a_file_is_accepted_up_to_its_limit() {
    for (length, allowed) in [(500_000usize, true), (500_001, false)] {
        let mut limits = Limits::default();
        limits.artifact = 500_000;
        let service = MetaService::builder(["true"]).limits(limits).start().unwrap();
        let fetching = start(&service, async |s: MetaService| s.read("/f").spool().await);
        let action = guest(&service).poll().await;
        let answer = guest(&service).post(&reply_to(&action), &vec![b'x'; length]).await;
        assert_eq!(answer.status, if allowed { 200 } else { 500 });
        match fetching.await.unwrap() {
            Ok(artifact) => assert!(allowed && artifact.len() == 500_000),
            Err(error) => {
                assert!(!allowed);
                assert_eq!(error.to_string(), "the guest's file is larger than 500000 bytes");
            }
        }
    }
}

#[tokio::test]
async fn a_numbered_log_passes_over_what_it_has() {
    let (log, mut reader) = tokio::io::duplex(10_000);
    let service = MetaService::builder(["true"]).log(log).start().unwrap();
    let send = async |offset: u64, text: &str| {
        let place = format!(r#"{{"stream":"s","offset":{offset}}}"#);
        let headers = [("Metaservice-Log", place.as_str())];
        guest(&service).request("POST", "/engine/v1/log", &headers, text.as_bytes()).await.status
    };
    assert_eq!(send(0, "one two ").await, 200);
    assert_eq!(send(4, "two three ").await, 200);
    assert_eq!(send(0, "one two three ").await, 200);
    assert_eq!(send(15, "a gap").await, 400);
    assert_eq!(send(14, "four").await, 200);
    let wrong = [("Metaservice-Log", "somewhere")];
    let answer = guest(&service).request("POST", "/engine/v1/log", &wrong, b"x").await;
    assert_eq!(answer.error(), (400, "InvalidPayload".to_owned()));
    drop(service);
    let mut all = String::new();
    reader.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "one two three four");
}

/// A connection of a guest's, in memory: simulated time passes while it waits.
fn connect(service: &MetaService) -> tokio::io::DuplexStream {
    let (guest, host) = tokio::io::duplex(4096);
    let service = service.clone();
    tokio::spawn(async move { service.serve_connection(host).await });
    guest
}

/// Reads an answer's head and as much of its body as comes with it.
async fn answer(guest: &mut tokio::io::DuplexStream) -> String {
    let mut bytes = vec![0; 4096];
    let count = guest.read(&mut bytes).await.unwrap();
    String::from_utf8(bytes[..count].to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_polls_no_longer_is_silent_and_one_that_comes_back_is_not() {
    const POLL: &[u8] = b"GET /engine/v1/poll HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n";
    let service = MetaService::builder(["true"]).start().unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(service.contact(), Contact::Awaited);
    let mut guest = connect(&service);
    guest.write_all(POLL).await.unwrap();
    assert!(answer(&mut guest).await.contains(r#""none""#));
    assert_eq!(begun.elapsed().as_secs(), 30);
    // The connection stays, as that of a machine that has gone without a word.
    assert_eq!(service.contact_changed(Contact::Present).await, Contact::Silent);
    assert_eq!(begun.elapsed().as_secs(), 30 + 60);
    let mut guest = connect(&service);
    guest.write_all(POLL).await.unwrap();
    assert_eq!(service.contact_changed(Contact::Silent).await, Contact::Present);
    // A connection that is lost counts from then on.
    let lost = tokio::time::Instant::now();
    drop(guest);
    assert_eq!(service.contact_changed(Contact::Present).await, Contact::Silent);
    assert_eq!(lost.elapsed().as_secs(), 60);
}

#[tokio::test]
async fn a_log_of_version_1_that_is_cut_or_outlives_its_service_may_have_a_hole() {
    const BEGUN: &[u8] = b"POST /engine/v1/log HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let directory = tempfile::tempdir().unwrap();
    let directory = |name: &str| directory.path().join(name);
    let start = |state: &str| {
        let (log, reader) = tokio::io::duplex(64);
        let service = MetaService::builder(["true"]).state(directory(state)).log(log);
        (service.start().unwrap(), reader)
    };
    // As another one finds it after kill -9.
    let copy = |from: &str, to: &str| {
        std::fs::create_dir(directory(to)).unwrap();
        for file in ["state.json", "log"] {
            std::fs::copy(directory(from).join(file), directory(to).join(file)).unwrap();
        }
    };
    let came = async |reader: &mut tokio::io::DuplexStream| {
        let mut bytes = [0; 3];
        reader.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"abc");
    };
    let (service, mut reader) = start("first");
    let mut guest = connect(&service);
    guest.write_all(BEGUN).await.unwrap();
    came(&mut reader).await;
    assert!(!service.log_has_hole(), "it may still come whole");
    copy("first", "in its midst");
    guest.write_all(b"0\r\n\r\n").await.unwrap();
    assert!(answer(&mut guest).await.starts_with("HTTP/1.1 200"));
    assert!(!service.log_has_hole(), "it came whole");
    copy("first", "behind it");

    assert!(!start("behind it").0.log_has_hole(), "nothing was under way");
    start("in its midst").0.log_hole().await;
    copy("in its midst", "for good");
    start("for good").0.log_hole().await;

    let mut guest = connect(&service);
    guest.write_all(BEGUN).await.unwrap();
    came(&mut reader).await;
    drop(guest);
    service.log_hole().await;
}
