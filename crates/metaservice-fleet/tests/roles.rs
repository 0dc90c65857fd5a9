//! Who may do what on a queue with the users of `contrib/nats/roles.conf`, and secrets.
#![allow(clippy::unwrap_used)]

mod servers;

use std::time::Duration;

use async_nats::jetstream;
use futures_util::TryStreamExt;
use metaservice_fleet::name::{RunId, Tenant};
use metaservice_fleet::queue::{
    CancelError, Cancelled, ConnectError, LimitError, PruneError, Queue, ReadError, RoomError,
    Settings, SubmitError, WriteError,
};
use metaservice_fleet::sealed::{Secrets, WorkerKey};
use metaservice_fleet::state::CANCELLATION;
use metaservice_fleet::step::{Change, ExceptionCause, LostCause, Outcome};
use metaservice_fleet::store::Store;
use metaservice_fleet::tenants::TenantLimits;
use metaservice_fleet::tunnel::{Portal, PortalError};
use metaservice_fleet::worker::{self, Options};
use metaservice_sandbox::spec::ArtifactSpec;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use servers::{One, id, shell};

fn claim() -> Change {
    Change::Claimed { worker: "w".parse().unwrap(), run: RunId::random() }
}

/// A worker that works until the value is dropped.
fn work(queue: &Queue, directory: &tempfile::TempDir, key: Option<WorkerKey>) -> impl Drop {
    let mut options = Options::new("w".parse().unwrap(), directory.path().join("w"));
    options.features.labels.insert("kvm".to_owned());
    (options.slots, options.key) = (2, key);
    options.drain_timeout = Duration::from_secs(60);
    let (events, _) = mpsc::unbounded_channel::<worker::Event>();
    let working = worker::run(queue.clone(), options, CancellationToken::new(), events);
    AbortOnDropHandle::new(tokio::spawn(async move { working.await.unwrap() }))
}

async fn outcome(queue: &Queue, name: &str) -> Outcome {
    let mut follow = queue.follow(&id(name)).await.unwrap();
    loop {
        if let Some(outcome) = follow.next().await.unwrap().outcome() {
            return outcome.clone();
        }
    }
}

async fn log(queue: &Queue, name: &str) -> String {
    let mut reader = queue.log(&id(name), 1).await.unwrap();
    let mut log = Vec::new();
    while let Some(chunk) = reader.next().await.unwrap() {
        log.extend(chunk.bytes);
    }
    String::from_utf8(log).unwrap()
}

/// All messages of all streams, as the administrator reads them.
async fn messages(server: &One) -> Vec<(String, Vec<u8>)> {
    let client = async_nats::ConnectOptions::with_user_and_password("admin".into(), "admin".into());
    let context = jetstream::new(client.connect(server.url()).await.unwrap());
    let names: Vec<String> = context.stream_names().try_collect().await.unwrap();
    let mut all = Vec::new();
    for name in names {
        let stream = context.get_stream(&name).await.unwrap();
        let state = stream.get_info().await.unwrap().state;
        for sequence in state.first_sequence..=state.last_sequence {
            if let Ok(message) = stream.get_raw_message(sequence).await {
                all.push((message.subject.to_string(), message.payload.to_vec()));
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_submits_and_cancels_and_writes_no_step_of_a_worker() {
    let server = One::with_roles();
    let admin = server.queue_of("admin").await;
    let client = server.queue_of("client").await;
    client.submit(&id("a"), &shell("true")).await.unwrap();
    client.submit(&id("b"), &shell("true")).await.unwrap();
    for (number, change) in [(1, claim()), (2, Change::Ended(Outcome::Cancelled))] {
        let forged = client.write(&id("a"), number, change).await;
        assert!(matches!(forged, Err(WriteError::Denied(_))), "{forged:?}");
    }
    // A worker neither submits nor cancels.
    let worker = server.queue_of("worker").await;
    let refused = worker.submit(&id("c"), &shell("true")).await;
    assert!(matches!(refused, Err(SubmitError::Write(WriteError::Denied(_)))), "{refused:?}");
    worker.write(&id("a"), 1, claim()).await.unwrap();

    assert_eq!(client.cancel(&id("a")).await.unwrap(), Cancelled::Running);
    assert!(client.job(&id("a")).await.unwrap().unwrap().is_cancelled);
    assert_eq!(client.cancel(&id("a")).await.unwrap(), Cancelled::Ended);
    assert_eq!(client.cancel(&id("b")).await.unwrap(), Cancelled::Waiting);
    // A claim behind the cancellation changes nothing.
    worker.write(&id("b"), 1, claim()).await.unwrap();
    for queue in [&client, &worker] {
        let view = queue.view().await.unwrap();
        assert_eq!(view.job(&id("b")).unwrap().outcome(), Some(&Outcome::Cancelled));
    }
    // A cancellation that was there before its job counts for none.
    admin.write(&id("d"), CANCELLATION, Change::Cancelled).await.unwrap();
    client.submit(&id("d"), &shell("true")).await.unwrap();
    let early = client.cancel(&id("d")).await;
    assert!(matches!(early, Err(CancelError::Early(_))), "{early:?}");
    let drained = client.drain(&"w".parse().unwrap()).await.unwrap_err();
    assert!(drained.to_string().contains("may not publish to ms.worker.w.drain"), "{drained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_reads_and_changes_nothing() {
    let server = One::with_roles();
    server.queue_of("admin").await.submit(&id("a"), &shell("true")).await.unwrap();
    let watcher = server.queue_of("watcher").await;
    assert_eq!(watcher.view().await.unwrap().jobs().count(), 1);
    let refused = watcher.submit(&id("b"), &shell("true")).await.unwrap_err();
    let text = refused.to_string();
    assert_eq!(text, "the user of the queue may not publish to $KV.ms_jobs.job.b.0");
    let refused = watcher.cancel(&id("a")).await;
    assert!(matches!(refused, Err(CancelError::Write(WriteError::Denied(_)))), "{refused:?}");
}

/// What a call returns long before it runs out of time.
async fn soon<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(4), call).await.expect("it ends at once")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_fails_at_once() {
    let server = One::with_roles();
    let admin = server.queue_of("admin").await;
    admin.submit(&id("a"), &shell("true")).await.unwrap();
    admin.submit(&id("b"), &shell("true")).await.unwrap();
    admin.write(&id("a"), 1, claim()).await.unwrap();
    admin.cancel(&id("b")).await.unwrap();
    let watcher = server.queue_of("watcher").await;
    let entered = soon(Portal::open(&watcher, &id("a"))).await;
    let Err(PortalError::Denied(denied)) = entered else { panic!("{entered:?}") };
    assert!(denied.subject.starts_with("ms.open.a.1."), "{denied}");
    let pruned = soon(watcher.prune(|_| true)).await;
    assert!(matches!(pruned, Err(PruneError::Denied(_))), "{pruned:?}");
    let store = Store::of_queue(watcher);
    let stored = store.put("a.1.0", tempfile::tempfile().unwrap());
    let stored = soon(stored).await.unwrap_err();
    let cause = std::error::Error::source(&stored).unwrap().to_string();
    assert!(cause.contains("may not publish to $O.ms_files.M."), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_without_its_rights_fails_at_once() {
    let words = ["\"$JS.API.CONSUMER.MSG.NEXT.KV_ms_jobs.*\"", "\"_INBOX.watcher.>\""];
    let server = One::with_roles_but(&words);
    server.queue_of("admin").await.submit(&id("a"), &shell("true")).await.unwrap();
    let client = server.queue_of("client").await;
    let read = soon(client.view()).await.map(drop);
    let Err(ReadError::Denied(denied)) = read else { panic!("{read:?}") };
    assert!(denied.subject.starts_with("$JS.API.CONSUMER.MSG.NEXT.KV_ms_jobs."), "{denied}");
    // No answer would ever come.
    let connected = soon(Queue::connect(&Settings::new(server.url_of("watcher")))).await;
    let Err(ConnectError::Denied(denied)) = connected else { panic!("{connected:?}") };
    let text = "the user of the queue may not subscribe to _INBOX.watcher.";
    assert!(denied.to_string().starts_with(text), "{denied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_limits_tenants_and_all_others_read_it() {
    let server = One::with_roles();
    let admin = server.queue_of("admin").await;
    let tenant = Tenant::default();
    let limits = TenantLimits { running: Some(2), waiting: Some(0) };
    admin.limit(&tenant, limits).await.unwrap();
    for role in ["client", "worker", "watcher"] {
        let queue = server.queue_of(role).await;
        assert_eq!(queue.limits_of(&tenant).await.unwrap(), limits);
        assert_eq!(queue.view().await.unwrap().tenants()[&tenant].limits, limits);
        let denied = queue.limit(&tenant, TenantLimits::default()).await;
        assert!(matches!(denied, Err(LimitError::Denied(_))), "{denied:?}");
        let full = queue.check_room(&tenant, &[&id("a")]).await;
        assert!(matches!(full, Err(RoomError::Full { limit: 0, .. })), "{full:?}");
    }
    assert_eq!(admin.limits_of(&tenant).await.unwrap(), limits);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_the_right_to_create_finds_no_queue() {
    let server = One::with_roles();
    // The server answers once this succeeds.
    let raw = async_nats::ConnectOptions::with_user_and_password("client".into(), "client".into());
    raw.retry_on_initial_connect().connect(server.url()).await.unwrap().flush().await.unwrap();
    let mut denied = Queue::connect(&Settings::new(server.url_of("client"))).await;
    while let Err(ConnectError::Server { .. }) = denied {
        denied = Queue::connect(&Settings::new(server.url_of("client"))).await;
    }
    assert!(matches!(denied, Err(ConnectError::Denied(_))), "{denied:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_keeps_its_lease_when_the_server_is_restarted() {
    let mut server = One::with_roles();
    server.queue_of("admin").await;
    let (client, worker) = (server.queue_of("client").await, server.queue_of("worker").await);
    let directory = tempfile::tempdir().unwrap();
    let working = work(&worker, &directory, None);
    while client.workers().await.unwrap().is_empty() {}
    server.restart().await;
    // A client may come before the worker has renewed its lease.
    let again = server.queue_of("client").await;
    while again.workers().await.unwrap().is_empty() {}
    again.submit(&id("a"), &shell("true")).await.unwrap();
    let finished = outcome(&again, "a").await;
    assert!(matches!(finished, Outcome::Finished { status: 0, .. }), "{finished:?}");
    drop(working);
}

/// What no client and no watcher stores or removes, whatever it sends.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_may_not_write_is_not_written() {
    let server = One::with_roles();
    server.queue_of("admin").await.submit(&id("a"), &shell("true")).await.unwrap();
    let before = messages(&server).await;
    for role in ["client", "watcher"] {
        let options = async_nats::ConnectOptions::with_user_and_password(role.into(), role.into());
        let client = options.connect(server.url()).await.unwrap();
        for subject in [
            "$KV.ms_jobs.job.a.1",
            "$KV.ms_jobs.x",
            "$KV.ms_leases.lease.w",
            "$KV.ms_tenants.tenant.t",
            "ms.log.a.1",
            "$O.ms_files.M.x",
            "$JS.API.STREAM.PURGE.KV_ms_jobs",
            "$JS.API.STREAM.DELETE.KV_ms_jobs",
            "$JS.API.STREAM.MSG.DELETE.KV_ms_jobs",
        ] {
            client.publish(subject, "{}".into()).await.unwrap();
        }
        client.flush().await.unwrap();
    }
    assert_eq!(messages(&server).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_does_its_part_of_a_job() {
    let server = One::with_roles();
    server.queue_of("admin").await;
    let (client, watcher) = (server.queue_of("client").await, server.queue_of("watcher").await);
    let worker = server.queue_of("worker").await;
    let (directory, key) = (tempfile::tempdir().unwrap(), WorkerKey::random());
    let mut request = shell("echo $TOKEN | tr a-z A-Z | tee /f");
    let artifact = serde_json::from_value::<ArtifactSpec>(serde_json::json!({ "path": "/f" }));
    request.spec.artifacts.push(artifact.unwrap());
    let secrets: Secrets = [("TOKEN".to_owned(), "hunter2".to_owned())].into();
    request.seal(&id("a"), &secrets, &key.public()).unwrap();
    let mut moved = request.clone();
    moved.attempts = 1;
    client.submit(&id("moved"), &moved).await.unwrap();
    client.submit(&id("a"), &request).await.unwrap();
    let mut other = shell("true");
    other.attempts = 1;
    let key_of_others = WorkerKey::random().public();
    other.seal(&id("b"), &secrets, &key_of_others).unwrap();
    client.submit(&id("b"), &other).await.unwrap();

    let working = work(&worker, &directory, Some(key));
    let Outcome::Finished { status: 0, artifacts, .. } = outcome(&client, "a").await else {
        panic!("{:?}", outcome(&client, "a").await);
    };
    for reader in [&client, &watcher] {
        assert_eq!(log(reader, "a").await, "HUNTER2\n");
        let mut file = Vec::new();
        let store = Store::of_queue(reader.clone());
        store.get(artifacts[0].object.as_ref().unwrap(), &mut file).await.unwrap();
        assert_eq!(file, b"HUNTER2\n");
    }
    for (name, words) in [("b", "sealed for the key"), ("moved", "those of another job")] {
        let Outcome::Exception { cause, message } = outcome(&watcher, name).await else {
            panic!("{name} has a result");
        };
        assert_eq!(cause, ExceptionCause::Lost(LostCause::Refused));
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(watcher.workers().await.unwrap().len(), 1);
    for (subject, payload) in messages(&server).await {
        let text = String::from_utf8_lossy(&payload);
        assert!(!text.contains("hunter2"), "{subject} has the secret");
    }
    drop(working);
}
