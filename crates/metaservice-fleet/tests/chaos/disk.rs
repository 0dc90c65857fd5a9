//! A worker whose disk is full. It needs the right to mount a file system.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use metaservice_fleet::state::Phase;
use metaservice_fleet::worker::{self, Event, Options};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::checks::has_its_log;
use super::fake::{Fake, Script};
use super::process::{journal, options};
use super::request;
use super::servers::One;

/// A small file system in memory.
struct Small(PathBuf);

impl Small {
    /// `None`: it is not permitted.
    fn mount(place: PathBuf) -> Option<Self> {
        std::fs::create_dir(&place).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&place);
        let status = command.stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success()).then_some(Self(place))
    }

    /// Fills it. Returns the file that does.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn event(events: &mut UnboundedReceiver<Event>, wanted: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = events.recv().await.expect("the worker works");
        if wanted(&event) {
            return event;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_waits_for_room_on_the_disk_and_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(root.path().join("w")) else {
        eprintln!("skipped: this user may mount nothing");
        return;
    };
    let server = One::start().await;
    let queue = server.queue().await;
    let drain = CancellationToken::new();
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    let work = tokio::spawn(worker::run_in(
        queue.clone(),
        Options { min_free_disk: 0, ..options("w", root.path()) },
        fake(root.path()),
        drain.clone(),
        sender,
    ));
    event(&mut events, |event| matches!(event, Event::Ready)).await;
    let filler = small.fill();
    let id = "full".parse().unwrap();
    let bytes: usize = Script::of("full", 1).parts.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes > 0, "the job has a log");
    queue.submit(&id, &request()).await.unwrap();
    let Event::Full { reason, .. } =
        event(&mut events, |event| matches!(event, Event::Full { .. })).await
    else {
        panic!("another event");
    };
    assert!(reason.contains("No space left"), "{reason}");
    let job = queue.job(&id).await.unwrap().unwrap();
    assert!(matches!(job.phase, Phase::Running { .. }), "{:?}", job.phase);
    std::fs::remove_file(filler).unwrap();
    event(&mut events, |event| matches!(event, Event::Ended { .. })).await;
    let job = queue.job(&id).await.unwrap().unwrap();
    assert_eq!(job.attempt, 1, "it waited in its first attempt");
    has_its_log(&queue, &id, &job).await;
    drain.cancel();
    work.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_takes_no_job_while_its_disk_is_nearly_full() {
    let root = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(root.path().join("w")) else {
        eprintln!("skipped: this user may mount nothing");
        return;
    };
    let server = One::start().await;
    let queue = server.queue().await;
    let drain = CancellationToken::new();
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    let filler = small.fill();
    let options = Options { min_free_disk: 128 << 10, ..options("w", root.path()) };
    // It needs a little for itself.
    std::fs::File::options().write(true).open(&filler).unwrap().set_len(200 << 10).unwrap();
    let fake = fake(root.path());
    let work = tokio::spawn(worker::run_in(queue.clone(), options, fake, drain.clone(), sender));
    event(&mut events, |event| matches!(event, Event::Ready)).await;
    let id = "waits".parse().unwrap();
    queue.submit(&id, &request()).await.unwrap();
    let mut leases = queue.leases().await.unwrap();
    while leases.next().await.unwrap().1.reason.as_deref() != Some("disk") {}
    let job = queue.job(&id).await.unwrap().unwrap();
    assert!(matches!(job.phase, Phase::Waiting { .. }), "{:?}", job.phase);
    std::fs::remove_file(filler).unwrap();
    event(&mut events, |event| matches!(event, Event::Ended { .. })).await;
    while leases.next().await.unwrap().1.reason.is_some() {}
    drain.cancel();
    work.await.unwrap().unwrap();
}

fn fake(root: &Path) -> Fake {
    Fake { worker: "w".to_owned(), journal: journal(root) }
}
