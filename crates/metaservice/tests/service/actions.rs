//! Actions from the handle to a guest and back.

use std::time::Duration;

use metaservice::{ActionError, ListError, MetaService, ReadError, Stage, TransportError};
use metaservice_testing::guest::{Answer, head, reply_to};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::{guest, start};

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[tokio::test]
async fn an_artifact_is_a_seekable_reader() {
    let service = crate::service();
    let fetching = start(&service, async |s: MetaService| s.read("/a b").spool().await);
    let action = guest(&service).poll().await;
    assert_eq!((&action["type"], &action["path"]), (&"get-artifact".into(), &"/a b".into()));
    let content: Vec<u8> =
        (0..3_000_000u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[2]).collect();
    assert_eq!(guest(&service).post(&reply_to(&action), &content).await.status, 200);
    let mut artifact = fetching.await.unwrap().unwrap();
    assert_eq!(artifact.len(), 3_000_000);
    let mut read = Vec::new();
    artifact.read_to_end(&mut read).await.unwrap();
    assert!(read == content);
    artifact.seek(std::io::SeekFrom::Start(2_999_999)).await.unwrap();
    assert_eq!(artifact.read_u8().await.unwrap(), content[2_999_999]);
    // The id is used up.
    let refusal = guest(&service).post(&reply_to(&action), b"again").await.error();
    assert_eq!(refusal, (400, "UnknownActionId".to_owned()));
}

#[tokio::test]
async fn temporary_storage_has_no_name() {
    let directory = tempfile::tempdir().unwrap();
    let service =
        MetaService::builder(["true"]).temporary_directory(directory.path()).start().unwrap();
    let fetching = start(&service, async |s: MetaService| s.read("/f").spool().await);
    let action = guest(&service).poll().await;
    guest(&service).post(&reply_to(&action), b"content").await;
    let artifact = fetching.await.unwrap().unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    drop(artifact);
}

#[tokio::test]
async fn a_missing_artifact_is_not_found() {
    let service = crate::service();
    let fetching = start(&service, async |s: MetaService| s.read("/none").spool().await);
    let action = guest(&service).poll().await;
    let wrong = [("X-Taskcluster-Worker-Error", "whatever")];
    let refusal = guest(&service).request("POST", &reply_to(&action), &wrong, b"").await.error();
    assert_eq!(refusal, (400, "InvalidPayload".to_owned()));
    let headers = [("X-Taskcluster-Worker-Error", "file-not-found")];
    assert_eq!(
        guest(&service).request("POST", &reply_to(&action), &headers, b"").await.status,
        200
    );
    assert!(matches!(fetching.await.unwrap(), Err(ReadError::NotFound(_))));
}

#[tokio::test]
async fn a_full_disk_is_the_callers_error_and_the_job_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let service =
        MetaService::builder(["true"]).temporary_directory(directory.path()).start().unwrap();
    directory.close().unwrap();
    let fetching = start(&service, async |s: MetaService| s.read("/f").spool().await);
    let action = guest(&service).poll().await;
    let answer = guest(&service).post(&reply_to(&action), b"content").await;
    assert_eq!(answer.error(), (500, "InternalError".to_owned()));
    assert!(matches!(fetching.await.unwrap(), Err(ReadError::Storage(_))));
    assert_eq!(guest(&service).get("/engine/v1/ping").await.status, 200);
}

/// Replies with the first bytes of a longer file, then closes.
async fn cut_reply(service: &MetaService) {
    let action = guest(service).poll().await;
    let mut stream = guest(service).dial();
    let length = [("Content-Length", "1000000")];
    stream.write_all(&head("POST", &reply_to(&action), &length)).await.unwrap();
    stream.write_all(&[7; 1000]).await.unwrap();
}

#[tokio::test]
async fn a_cut_reply_is_tried_three_times() {
    let service = crate::service();
    let fetching = start(&service, async |s: MetaService| s.read("/f").spool().await);
    cut_reply(&service).await;
    cut_reply(&service).await;
    let action = guest(&service).poll().await;
    guest(&service).post(&reply_to(&action), b"whole").await;
    assert_eq!(fetching.await.unwrap().unwrap().len(), 5);

    let fetching = start(&service, async |s: MetaService| s.read("/f").spool().await);
    for _ in 0..3 {
        cut_reply(&service).await;
    }
    let error = fetching.await.unwrap().unwrap_err();
    let ReadError::Action(ActionError::Transport(cause)) = error else { panic!("{error}") };
    assert!(matches!(cause, TransportError::Cut(_) | TransportError::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_stalls_is_given_up_and_one_that_moves_is_not() {
    let service = crate::service();
    let fetching = start(&service, async |s: MetaService| s.read("/f").spool().await);
    let action = guest(&service).poll().await;
    let mut stream = guest(&service).dial();
    let headers = [("Content-Length", "20"), ("Connection", "close")];
    stream.write_all(&head("POST", &reply_to(&action), &headers)).await.unwrap();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(29)).await;
        stream.write_all(b"x").await.unwrap();
    }
    assert_eq!(fetching.await.unwrap().unwrap().len(), 20);

    let fetching = start(&service, async |s: MetaService| s.read("/f").spool().await);
    let mut stuck = Vec::new();
    for _ in 0..3 {
        let action = guest(&service).poll().await;
        let mut stream = guest(&service).dial();
        stream.write_all(&head("POST", &reply_to(&action), &headers)).await.unwrap();
        stuck.push(stream);
        tokio::time::sleep(Duration::from_secs(31)).await;
    }
    let error = fetching.await.unwrap().unwrap_err();
    assert!(matches!(error, ReadError::Action(ActionError::Transport(TransportError::Stalled))));
}

#[tokio::test]
async fn a_directory_is_listed_by_either_end_point() {
    let service = crate::service();
    for path in ["/engine/v1/reply?id=", "/engine/v1/list-folder?id="] {
        let listing = start(&service, async |s: MetaService| s.list("/d").files().await);
        let action = guest(&service).poll().await;
        assert_eq!(action["type"], "list-folder");
        let target = format!("{path}{}", action["id"].as_str().unwrap());
        let body = br#"{"files":["/d/a","/d/b/c"],"notFound":false}"#;
        assert_eq!(guest(&service).request("POST", &target, &[JSON], body).await.status, 200);
        assert_eq!(listing.await.unwrap().unwrap(), ["/d/a", "/d/b/c"]);
    }
}

#[tokio::test]
async fn a_broken_list_is_refused_without_using_the_action_up() {
    let service = crate::service();
    let listing = start(&service, async |s: MetaService| s.list("/d").files().await);
    let action = guest(&service).poll().await;
    let target = reply_to(&action);
    let good = br#"{"files":null,"notFound":true}"#;
    let invalid = (400, "InvalidPayload".to_owned());
    let text = [("Content-Type", "text/plain")];
    assert_eq!(guest(&service).request("POST", &target, &text, good).await.error(), invalid);
    assert_eq!(guest(&service).request("POST", &target, &[], good).await.error(), invalid);
    for broken in [&b"{\"files\":7}"[..], b"[[\"/f\"],false]", b""] {
        let refusal = guest(&service).request("POST", &target, &[JSON], broken).await.error();
        assert_eq!(refusal, invalid);
    }
    let wrong = (405, "MethodNotAllowed".to_owned());
    assert_eq!(guest(&service).get(&target).await.error(), wrong);
    let typed = [("Content-Type", "Application/JSON; charset=utf-8")];
    assert_eq!(guest(&service).request("POST", &target, &typed, good).await.status, 200);
    assert!(matches!(listing.await.unwrap(), Err(ListError::NotFound(_))));
}

/// A guest of version 1 does not reply again.
#[tokio::test(start_paused = true)]
async fn a_refused_list_tells_its_caller_why_and_one_that_is_too_long_at_once() {
    let service = crate::service();
    let long = vec![b' '; 10 * 1024 * 1024 + 1];
    for (body, why, seconds) in
        [(&long[..], "at most 10485760 bytes", 0), (b"[[\"/f\"],false]", "not a Files payload", 30)]
    {
        let listing = start(&service, async |s: MetaService| s.list("/d").files().await);
        let target = reply_to(&guest(&service).poll().await);
        let begun = Instant::now();
        let refused = guest(&service).request("POST", &target, &[JSON], body).await;
        assert_eq!(refused.error(), (400, "InvalidPayload".to_owned()), "{why}");
        let error = listing.await.unwrap().unwrap_err();
        let ListError::Action(ActionError::Invalid(reason)) = error else {
            panic!("{error}");
        };
        assert!(reason.to_string().contains(why), "{reason}");
        assert_eq!(begun.elapsed().as_secs(), seconds, "{why}");
        let late = guest(&service).request("POST", &target, &[JSON], b"{}").await;
        assert_eq!(late.error(), (400, "UnknownActionId".to_owned()));
    }
}

#[tokio::test]
async fn a_list_of_exactly_the_limit_is_taken() {
    let service = crate::service();
    let listing = start(&service, async |s: MetaService| s.list("/d").files().await);
    let action = guest(&service).poll().await;
    let mut body = br#"{"files":["/x"],"notFound":false}"#.to_vec();
    body.resize(10 * 1024 * 1024, b' ');
    assert_eq!(
        guest(&service).request("POST", &reply_to(&action), &[JSON], &body).await.status,
        200
    );
    assert_eq!(listing.await.unwrap().unwrap(), ["/x"]);
}

#[tokio::test]
async fn an_id_that_was_never_issued_is_unknown() {
    let service = crate::service();
    for id in ["", "?id=", "?id=never", "?id=a%20b", "?id=a/../b", "?name=x"] {
        let refusal = guest(&service).post(&format!("/engine/v1/reply{id}"), b"").await.error();
        assert_eq!(refusal, (400, "UnknownActionId".to_owned()), "{id}");
    }
}

#[tokio::test]
async fn a_poll_whose_connection_is_gone_gives_its_action_to_the_next() {
    let service = crate::service();
    // This guest asks, and is gone while it waits.
    let mut waiting = guest(&service).dial();
    waiting.write_all(&head("GET", "/engine/v1/poll", &[])).await.unwrap();
    tokio::task::yield_now().await;
    drop(waiting);
    // This one is answered, but takes no more than the first bytes of the answer.
    let mut stuck = guest(&service).dial_sized(16);
    stuck.write_all(&head("GET", "/engine/v1/poll", &[])).await.unwrap();
    let killing = start(&service, async |s: MetaService| s.kill().await);
    let mut first = [0; 12];
    stuck.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    drop(stuck);
    let action = guest(&service).poll().await;
    assert_eq!(action["type"], "kill-process");
    assert_eq!(guest(&service).post(&reply_to(&action), b"").await.status, 200);
    killing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn time_runs_out_where_no_agent_polls_and_where_none_replies() {
    let service = crate::service();
    let begun = Instant::now();
    let error = service.kill().await.unwrap_err();
    assert!(matches!(error, ActionError::TimedOut(Stage::Pickup)));
    assert_eq!(begun.elapsed().as_secs(), 30);

    let killing = start(&service, async |s: MetaService| s.kill().await);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let action = guest(&service).poll().await;
    let begun = Instant::now();
    let error = killing.await.unwrap().unwrap_err();
    assert!(matches!(error, ActionError::TimedOut(Stage::Reply)));
    assert_eq!(begun.elapsed().as_secs(), 30);
    let refusal = guest(&service).post(&reply_to(&action), b"").await.error();
    assert_eq!(refusal, (400, "UnknownActionId".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_poll_without_an_action_is_answered_after_30_seconds() {
    let service = crate::service();
    let begun = Instant::now();
    let first = guest(&service).poll().await;
    assert_eq!((&first["type"], begun.elapsed().as_secs()), (&"none".into(), 30));
    let second = guest(&service).poll().await;
    assert_ne!(first["id"], second["id"]);
}

#[tokio::test(start_paused = true)]
async fn stop_pollers_answers_those_who_wait_and_those_who_come_later() {
    let service = crate::service();
    let begun = Instant::now();
    let agent = guest(&service);
    let (action, ()) = tokio::join!(agent.poll(), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        service.stop_pollers();
    });
    assert_eq!((&action["type"], begun.elapsed().as_secs()), (&"none".into(), 5));
    let killing = start(&service, async |s: MetaService| s.kill().await);
    for _ in 0..3 {
        assert_eq!(guest(&service).poll().await["type"], "none");
    }
    assert_eq!(begun.elapsed().as_secs(), 5);
    killing.abort();
}

#[tokio::test]
async fn a_dropped_future_withdraws_its_action() {
    let service = crate::service();
    let fetching = start(&service, async |s: MetaService| s.read("/f").spool().await);
    let taken = guest(&service).poll().await;
    fetching.abort();
    assert!(fetching.await.unwrap_err().is_cancelled());
    let refusal = guest(&service).post(&reply_to(&taken), b"late").await.error();
    assert_eq!(refusal, (400, "UnknownActionId".to_owned()));

    let queued = start(&service, async |s: MetaService| s.read("/g").spool().await);
    tokio::task::yield_now().await;
    queued.abort();
    let _ = queued.await;
    let killing = start(&service, async |s: MetaService| s.kill().await);
    let action = guest(&service).poll().await;
    assert_eq!(action["type"], "kill-process", "the withdrawn action was handed out");
    guest(&service).post(&reply_to(&action), b"").await;
    killing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reply_under_way_is_cut_when_its_caller_goes() {
    let service = crate::service();
    let fetching = start(&service, async |s: MetaService| s.read("/f").spool().await);
    let action = guest(&service).poll().await;
    let mut stream = guest(&service).dial();
    let headers = [("Content-Length", "1000"), ("Connection", "close")];
    stream.write_all(&head("POST", &reply_to(&action), &headers)).await.unwrap();
    stream.write_all(b"begun").await.unwrap();
    tokio::task::yield_now().await;
    fetching.abort();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(Answer::parse(&answer).error(), (400, "UnknownActionId".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_what_is_pending_and_what_comes_later() {
    let service = crate::service();
    let pending = start(&service, async |s: MetaService| s.list("/").files().await);
    let replying = start(&service, async |s: MetaService| s.read("/").spool().await);
    guest(&service).poll().await;
    let begun = Instant::now();
    service.shutdown().await.unwrap();
    let error = pending.await.unwrap().unwrap_err();
    assert!(matches!(error, ListError::Action(ActionError::Terminated)));
    let error = replying.await.unwrap().unwrap_err();
    assert!(matches!(error, ReadError::Action(ActionError::Terminated)));
    assert!(matches!(service.kill().await, Err(ActionError::Terminated)));
    assert_eq!(begun.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_action_whose_reply_was_refused_late_times_out_all_the_same() {
    let service = crate::service();
    let listing = start(&service, async |s: MetaService| s.list("/d").files().await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let action = guest(&service).poll().await;
    let mut stream = guest(&service).dial();
    let headers = [JSON, ("Content-Length", "50"), ("Connection", "close")];
    stream.write_all(&head("POST", &reply_to(&action), &headers)).await.unwrap();
    // Its caller's timer comes and goes while the reply is under way.
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(610)).await;
        stream.write_all(b"x").await.unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(Answer::parse(&answer).error(), (400, "InvalidPayload".to_owned()));
    // No agent polls any longer.
    let ended = tokio::time::timeout(Duration::from_secs(60), listing).await;
    let error = ended.expect("an end").unwrap().unwrap_err();
    assert!(matches!(error, ListError::Action(ActionError::Invalid(_))), "{error}");
}
