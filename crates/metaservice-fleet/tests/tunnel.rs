//! Connections to a job over a real `nats-server`. The far end is a plain socket, without a machine.
#![allow(clippy::unwrap_used)]

mod servers;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metaservice_fleet::name::{JobId, RunId};
use metaservice_fleet::queue::Queue;
use metaservice_fleet::request::Request;
use metaservice_fleet::step::{Change, Outcome};
use metaservice_fleet::tunnel::flow::WINDOW;
use metaservice_fleet::tunnel::frame::Reason;
use metaservice_fleet::tunnel::{Door, MAX_CONNECTIONS, Portal, PortalError};
use metaservice_sandbox::spec::JobSpec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use servers::One;

/// More than a side may take to notice that the other one is gone.
const NOTICED: Duration = Duration::from_secs(15);

fn id() -> JobId {
    "a".parse().unwrap()
}

/// A job with a door, whose socket this test serves.
struct Job {
    _server: One,
    client: Queue,
    door: Door,
    listener: UnixListener,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Job {
    /// The worker and the client have a connection each.
    async fn start() -> Self {
        let server = One::start().await;
        let (worker, client) = (server.queue().await, server.queue().await);
        client.submit(&id(), &Request::new(JobSpec::new(["true"]))).await.unwrap();
        let (name, run) = ("w".parse().unwrap(), RunId::random());
        client.write(&id(), 1, Change::Claimed { worker: name, run }).await.unwrap();
        let door = Door::open(&worker, &id(), 1);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        Self { _server: server, client, door, listener, path, _directory: directory }
    }

    /// A way to the job, whose socket is there.
    async fn portal(&self) -> Portal {
        self.door.lead_to(self.path.clone());
        let id = id();
        let (portal, _) = tokio::join!(Portal::open(&self.client, &id), self.listener.accept());
        portal.unwrap()
    }

    /// A connection: its near and its far end.
    async fn connection(&self, portal: &Portal) -> (UnixStream, UnixStream) {
        let near = UnixStream::connect(portal.client_path()).await.unwrap();
        let (far, _) = self.listener.accept().await.unwrap();
        (near, far)
    }
}

/// Bytes that differ, so that a part at the wrong place is noticed.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    let words = (0..length.div_ceil(8) as u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).map(|byte| byte ^ seed).collect();
    bytes.truncate(length);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_arrive_as_they_are_in_both_directions_at_once() {
    let job = Job::start().await;
    let portal = job.portal().await;
    let (near, far) = job.connection(&portal).await;
    let exchange = async |stream: UnixStream, seed| {
        let (mut reader, mut writer) = stream.into_split();
        let writing = async move {
            writer.write_all(&pattern(8 << 20, seed)).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (read, ()) = tokio::join!(reader.read_to_end(&mut got), writing);
        read.unwrap();
        got
    };
    let (to_near, to_far) = tokio::join!(exchange(near, 1), exchange(far, 2));
    assert!(to_near == pattern(8 << 20, 2) && to_far == pattern(8 << 20, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_stops_its_sender_and_no_other() {
    let job = Job::start().await;
    let portal = job.portal().await;
    let (mut near, slow) = job.connection(&portal).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let (counter, part) = (Arc::clone(&sent), vec![7; 4096]);
    let writing = tokio::spawn(async move {
        while let Ok(count) = near.write(&part).await {
            counter.fetch_add(count, Ordering::SeqCst);
        }
    });
    // Another connection works meanwhile. Each of its turns gives the first one time to send.
    let (mut other, mut echo) = job.connection(&portal).await;
    let mut before = usize::MAX;
    let mut answer = [0; 1024];
    while before != sent.load(Ordering::SeqCst) {
        before = sent.load(Ordering::SeqCst);
        for _ in 0..200 {
            other.write_all(&[9; 1024]).await.unwrap();
            echo.read_exact(&mut answer).await.unwrap();
            echo.write_all(&answer).await.unwrap();
            other.read_exact(&mut answer).await.unwrap();
        }
    }
    // The buffers of the two sockets have less than a window each.
    assert!((WINDOW / 2..3 * WINDOW).contains(&before), "{before} bytes are on the way");
    drop(slow);
    tokio::time::timeout(NOTICED, writing).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_vanishes_ends_an_idle_connection() {
    let job = Job::start().await;
    let portal = job.portal().await;
    let (mut near, _far) = job.connection(&portal).await;
    drop(job.door);
    let end = tokio::time::timeout(NOTICED, near.read_u8()).await.unwrap();
    assert!(end.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_ends_an_idle_connection() {
    let job = Job::start().await;
    let portal = job.portal().await;
    let (_near, mut far) = job.connection(&portal).await;
    let path = portal.client_path().to_owned();
    drop(portal);
    let end = tokio::time::timeout(NOTICED, far.read_u8()).await.unwrap();
    assert!(end.is_err());
    assert!(!path.exists() && !path.parent().unwrap().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_attempt_ends_its_connections() {
    let job = Job::start().await;
    let portal = job.portal().await;
    let (mut near, mut far) = job.connection(&portal).await;
    far.write_all(b"last").await.unwrap();
    job.door.close().await;
    let mut text = String::new();
    near.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "last");
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_for_a_machine_that_boots() {
    let job = Job::start().await;
    let (told, mut opened) = mpsc::channel(1);
    let client = job.client.clone();
    let opening = tokio::spawn(async move {
        let portal = Portal::open(&client, &id()).await;
        told.send(()).await.unwrap();
        portal
    });
    let early = tokio::time::timeout(Duration::from_millis(500), opened.recv()).await;
    assert!(early.is_err(), "there is no socket yet");
    job.door.lead_to(job.path.clone());
    assert!(opening.await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_does_not_run_has_a_reason() {
    let job = Job::start().await;
    let failed = async |name: &str| {
        let id: JobId = name.parse().unwrap();
        Portal::open(&job.client, &id).await.expect_err("it does not run")
    };
    assert!(matches!(failed("missing").await, PortalError::Read(_)));
    let waiting: JobId = "waits".parse().unwrap();
    job.client.submit(&waiting, &Request::new(JobSpec::new(["true"]))).await.unwrap();
    assert!(matches!(failed("waits").await, PortalError::Waits(_)));
    job.door.lead_to("/no/such/socket".into());
    let refused = failed("a").await;
    assert!(
        matches!(refused, PortalError::Refused { reason: Reason::CannotConnect, .. }),
        "{refused:?}"
    );
    job.client.write(&id(), 2, Change::Ended(Outcome::Cancelled)).await.unwrap();
    assert!(matches!(failed("a").await, PortalError::Ended(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_a_bounded_number_of_connections() {
    let job = Job::start().await;
    let portal = job.portal().await;
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        open.push(job.connection(&portal).await);
    }
    let refused = Portal::open(&job.client, &id()).await.expect_err("there are enough");
    assert!(matches!(refused, PortalError::Refused { reason: Reason::TooMany, .. }), "{refused:?}");
    open.pop();
    // The connection ends, and leaves its place.
    let (again, _) = tokio::join!(
        async {
            loop {
                match Portal::open(&job.client, &id()).await {
                    Err(PortalError::Refused { reason: Reason::TooMany, .. }) => {}
                    opened => break opened,
                }
            }
        },
        job.listener.accept()
    );
    assert!(again.is_ok(), "{again:?}");
}
