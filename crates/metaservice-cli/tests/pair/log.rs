//! The log is exactly what the command wrote, whatever is cut, stopped or killed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use metaservice::{LogFrom, LogOutput, MetaService, TerminalSize};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use metaservice_testing::pair::Pair;
use metaservice_testing::wait::TIMEOUT;

use crate::AGENT;
use crate::chaos::with_seeds;

/// A log sink that keeps everything.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<watch::Sender<Vec<u8>>>);

impl AsyncWrite for Kept {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.0.send_modify(|kept| kept.extend_from_slice(bytes));
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Kept {
    /// The log so far.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.borrow().clone()
    }

    /// Waits until the log contains `text`.
    pub(crate) async fn wait_for(&self, text: &[u8]) {
        let mut kept = self.0.subscribe();
        let found = kept.wait_for(|kept| kept.windows(text.len()).any(|window| window == text));
        let found = timeout(TIMEOUT, found).await;
        assert!(found.is_ok(), "{} is not in {:?}", text.escape_ascii(), self.0.borrow());
    }

    /// Waits until the log has this many bytes.
    pub(crate) async fn wait_for_length(&self, length: usize) {
        let mut kept = self.0.subscribe();
        // What it returns locks the log, so it is dropped first.
        let enough = timeout(TIMEOUT, kept.wait_for(|kept| kept.len() >= length)).await.is_ok();
        assert!(enough, "{} of {length} bytes", self.bytes().len());
    }

    /// Checks that the log is the lines from 1 to `last`.
    fn assert_counts_to(&self, last: usize, what: &str) {
        let expected: Vec<u8> = (1..=last).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let log = self.0.borrow();
        let same = log.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        let (got, wanted) = (log.len(), expected.len());
        assert!(*log == expected, "{what}: {got} bytes of {wanted}, the first {same} are right");
    }
}

fn counting_to(last: usize) -> [String; 2] {
    ["seq".to_owned(), last.to_string()]
}

/// Returns random offsets for cuts, a few of them early.
fn cuts(random: &mut StdRng, most: u64) -> Vec<u64> {
    let count = random.random_range(1..8);
    (0..count).map(|_| random.random_range(0..most)).collect()
}

#[tokio::test]
async fn a_log_is_whole_however_often_its_connections_are_cut() {
    let kept = Kept::default();
    let cuts = vec![0, 1, 100_000, 3, 5_000_000, 70_000, 0, 4_000_000];
    let builder = MetaService::builder(counting_to(3_000_000)).log(kept.clone());
    let pair = Pair::with(&AGENT, builder, Some(cuts)).await;
    assert!(timeout(TIMEOUT, pair.service.result()).await.unwrap().success);
    kept.assert_counts_to(3_000_000, "cut");
}

#[tokio::test]
async fn a_log_is_whole_when_its_agent_is_killed_in_its_midst() {
    let kept = Kept::default();
    let script =
        "for n in $(seq 1 40); do seq $((n * 10000 - 9999)) $((n * 10000)); sleep 0.02; done";
    let builder = MetaService::builder(["sh", "-c", script]).log(kept.clone());
    let mut pair = Pair::with(&AGENT, builder, None).await;
    for restart in 1..=5 {
        kept.wait_for_length(restart * 300_000).await;
        pair.restart_agent();
    }
    assert!(timeout(TIMEOUT, pair.service.result()).await.unwrap().success);
    kept.assert_counts_to(400_000, "killed");
}

/// The host accepts nothing for a while. The command waits, and the guest buffers some megabytes.
#[tokio::test]
async fn a_host_that_stalls_holds_the_command_back() {
    for separate in [false, true] {
        stalls(separate).await;
    }
}

async fn stalls(separate: bool) {
    let (log, mut reader) = tokio::io::duplex(1000);
    let directory = tempfile::tempdir().unwrap();
    let progress = directory.path().join("progress");
    let script = format!(
        "for n in $(seq 1 100); do head -c 900000 /dev/zero; head -c 100000 /dev/zero >&2; \
         echo $n > {}; done",
        progress.display()
    );
    let builder = MetaService::builder(["sh", "-c", &script]).separate(separate).log(log);
    let pair = Pair::with(&AGENT, builder, None).await;
    let written = || {
        let text = std::fs::read_to_string(&progress).unwrap_or_default();
        text.trim().parse::<usize>().unwrap_or(0)
    };
    let (mut before, mut still) = (0, 0);
    // No event shows that nothing moves, so the count must stay the same for half a second.
    while still < 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        still = if before == written() { still + 1 } else { 0 };
        before = written();
    }
    assert!((1..16).contains(&before), "{before} MB are under way");
    let mut all = 0;
    let mut buffer = vec![0; 1 << 20];
    while all < 100_000_000 {
        let count = timeout(TIMEOUT, reader.read(&mut buffer)).await.unwrap().unwrap();
        assert!(buffer[..count].iter().all(|byte| *byte == 0));
        all += count;
    }
    assert!(timeout(TIMEOUT, pair.service.result()).await.unwrap().success);
    assert_eq!(all, 100_000_000);
}

/// A proxy cuts at random bytes, and the agent is killed at random times, a thousand times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_loses_nothing() {
    with_seeds(1000, chaos).await;
}

async fn chaos(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let last = random.random_range(1..60_000usize);
    let errors = random.random_range(1..20_000usize);
    let status = random.random_range(0..3u8);
    let pause = if random.random_bool(0.3) { "sleep 0.03; " } else { "" };
    // Both outputs at once, and one after the other.
    let script = format!(
        "seq 1 {errors} >&2 & seq 1 {half}; {pause}wait; seq {next} {last}; \
         seq {after} {all} >&2; exit {status}",
        half = last / 2,
        next = last / 2 + 1,
        after = errors + 1,
        all = errors + 10,
    );
    let (kept, kept_errors) = (Kept::default(), Kept::default());
    let builder = MetaService::builder(["sh", "-c", &script]).separate(true).keep_log(1 << 30);
    let builder = builder.log(kept.clone()).log_stderr(kept_errors.clone());
    let cuts = cuts(&mut random, 400_000);
    let mut pair = Pair::with(&AGENT, builder, Some(cuts)).await;
    if random.random_bool(0.2) {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
        pair.restart_agent();
    }
    let result = timeout(TIMEOUT / 2, pair.service.result()).await;
    let Ok(result) = result else {
        panic!("no result, {} bytes of log; {}", kept.0.borrow().len(), pair.describe())
    };
    assert_eq!(result.success, status == 0);
    assert_eq!(result.ending.unwrap().exit_code, Some(status));
    kept.assert_counts_to(last, "chaos");
    kept_errors.assert_counts_to(errors + 10, "chaos of stderr");
    // The stored log says the same.
    let mut reader = pair.service.log_reader(LogFrom::Start, true).await.unwrap().unwrap();
    let mut stored = [Kept::default(), Kept::default()];
    while let Some(segment) = reader.next_segment().await.unwrap() {
        let kept = &mut stored[usize::from(segment.output == LogOutput::Stderr)];
        kept.0.send_modify(|kept| kept.extend_from_slice(&segment.bytes));
    }
    stored[0].assert_counts_to(last, "stored");
    stored[1].assert_counts_to(errors + 10, "stored stderr");
}

/// All segments of the log of a job that has ended, those of one output in a row joined.
async fn stored(service: &MetaService) -> Vec<(LogOutput, String)> {
    let mut reader = service.log_reader(LogFrom::Start, true).await.unwrap().unwrap();
    let mut all: Vec<(LogOutput, String)> = Vec::new();
    while let Some(segment) = timeout(TIMEOUT, reader.next_segment()).await.unwrap().unwrap() {
        let text = std::str::from_utf8(&segment.bytes).unwrap();
        match all.last_mut() {
            Some((output, before)) if *output == segment.output => before.push_str(text),
            _ => all.push((segment.output, text.to_owned())),
        }
    }
    all
}

#[tokio::test]
async fn outputs_come_in_the_order_in_which_they_were_written() {
    // With pauses in which the supervisor runs, whatever else does.
    let script = "for n in 1 2 3 4 5; do echo o$n; sleep 0.1; echo e$n >&2; sleep 0.1; done";
    let builder = MetaService::builder(["sh", "-c", script]).separate(true).keep_log(1 << 20);
    let pair = Pair::with(&AGENT, builder, None).await;
    assert!(timeout(TIMEOUT, pair.service.result()).await.unwrap().success);
    let expected: Vec<_> = (1..=5)
        .flat_map(|n| {
            [(LogOutput::Stdout, format!("o{n}\n")), (LogOutput::Stderr, format!("e{n}\n"))]
        })
        .collect();
    assert_eq!(stored(&pair.service).await, expected);
}

#[tokio::test]
async fn a_command_that_cannot_be_started_says_so_on_stderr() {
    let builder = MetaService::builder(["/no/such"]).separate(true).keep_log(1 << 20);
    let pair = Pair::with(&AGENT, builder, None).await;
    assert_eq!(pair.service.result().await.status(), 127);
    let log = stored(&pair.service).await;
    assert_eq!((log.len(), log[0].0), (1, LogOutput::Stderr), "{log:?}");
}

/// A host of version 1, a host that does not ask, and a terminal: one output, as before.
#[tokio::test]
async fn without_an_agreement_there_is_one_output_in_the_exact_order() {
    let script = "for n in 1 2 3 4 5; do echo o$n; echo e$n >&2; done";
    let builder = || MetaService::builder(["sh", "-c", script]).keep_log(1 << 20);
    let size = TerminalSize { columns: 80, rows: 24 };
    let lines = |end: &str| -> String { (1..=5).map(|n| format!("o{n}{end}e{n}{end}")).collect() };
    for (builder, end) in [
        (builder().separate(true).extensions(false), "\n"),
        (builder(), "\n"),
        (builder().separate(true).terminal(size), "\r\n"),
    ] {
        let pair = Pair::with(&AGENT, builder, None).await;
        assert!(timeout(TIMEOUT, pair.service.result()).await.unwrap().success);
        assert_eq!(stored(&pair.service).await, [(LogOutput::Stdout, lines(end))]);
    }
}
