//! The stdin of the job's command is exactly what the host wrote, whatever is cut or killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metaservice::{AttachError, JobStdin, MetaService, TerminalSize};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use metaservice_testing::pair::Pair;
use metaservice_testing::wait::TIMEOUT;

use crate::AGENT;
use crate::chaos::with_seeds;
use crate::log::Kept;

/// Bytes without a period that fits into blocks.
fn content(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

async fn write(mut stdin: JobStdin, bytes: &[u8]) {
    stdin.write_all(bytes).await.unwrap();
    stdin.shutdown().await.unwrap();
    stdin.closed().await.unwrap();
}

async fn result(pair: &Pair) -> metaservice::JobResult {
    let result = timeout(TIMEOUT, pair.service.result()).await;
    result.unwrap_or_else(|_| panic!("no result; {}", pair.describe()))
}

#[tokio::test]
async fn a_command_reads_its_stdin_to_its_end() {
    let kept = Kept::default();
    let builder = MetaService::builder(["cat"]).stdin(true).log(kept.clone());
    let pair = Pair::with(&AGENT, builder, None).await;
    let content = content(5_000_000);
    write(pair.service.attach().unwrap(), &content).await;
    assert!(result(&pair).await.success);
    assert!(kept.bytes() == content);
    assert_eq!(pair.service.attach().unwrap_err(), AttachError::Ended);
}

#[tokio::test]
async fn a_command_without_stdin_has_dev_null() {
    let kept = Kept::default();
    let builder = MetaService::builder(["sh", "-c", "cat; readlink /proc/self/fd/0"]);
    let pair = Pair::with(&AGENT, builder.log(kept.clone()), None).await;
    assert_eq!(pair.service.attach().unwrap_err(), AttachError::NoStdin);
    assert!(result(&pair).await.success);
    assert_eq!(kept.bytes(), b"/dev/null\n");
}

#[tokio::test]
async fn one_writer_is_attached_and_another_continues_after_it() {
    let kept = Kept::default();
    let builder = MetaService::builder(["cat"]).stdin(true).log(kept.clone());
    let pair = Pair::with(&AGENT, builder, None).await;
    let mut first = pair.service.attach().unwrap();
    first.write_all(b"one ").await.unwrap();
    assert_eq!(pair.service.attach().unwrap_err(), AttachError::Busy);
    // A writer that leaves ends nothing.
    drop(first);
    write(pair.service.attach().unwrap(), b"two").await;
    assert!(result(&pair).await.success);
    assert_eq!(kept.bytes(), b"one two");
}

#[tokio::test]
async fn a_command_that_reads_no_more_ends_the_stdin_and_not_the_job() {
    let script = "head -c 3; exec <&-; echo; echo closed; sleep 1000";
    let kept = Kept::default();
    let builder = MetaService::builder(["sh", "-c", script]).stdin(true).log(kept.clone());
    let pair = Pair::with(&AGENT, builder, None).await;
    let mut stdin = pair.service.attach().unwrap();
    stdin.write_all(b"abc").await.unwrap();
    kept.wait_for(b"closed").await;
    // More than a pipe and all buffers hold.
    let written = timeout(TIMEOUT, stdin.write_all(&vec![0; 8 << 20])).await.unwrap();
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    timeout(TIMEOUT, stdin.closed()).await.unwrap().unwrap();
    drop(stdin);
    assert_eq!(pair.service.attach().unwrap_err(), AttachError::Ended);
    assert!(pair.service.try_result().is_none());
}

#[tokio::test]
async fn a_command_that_never_reads_holds_its_writer_back_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let go = directory.path().join("go");
    let script =
        format!("echo ready; while [ ! -e {} ]; do sleep 0.02; done; exit 3", go.display());
    let kept = Kept::default();
    let builder = MetaService::builder(["sh", "-c", &script]).stdin(true).log(kept.clone());
    let pair = Pair::with(&AGENT, builder, None).await;
    kept.wait_for(b"ready").await;
    let accepted = Arc::new(AtomicUsize::new(0));
    let writing = tokio::spawn({
        let (mut stdin, accepted) = (pair.service.attach().unwrap(), Arc::clone(&accepted));
        async move {
            let block = vec![0; 64 * 1024];
            loop {
                match stdin.write(&block).await {
                    Ok(count) => accepted.fetch_add(count, Ordering::SeqCst),
                    Err(error) => return error.kind(),
                };
            }
        }
    });
    // Without a limit, the writer would have gigabytes accepted while these commands run.
    for _ in 0..20 {
        assert!(pair.service.exec(["true"]).output().await.unwrap().status.success());
    }
    std::fs::write(&go, "").unwrap();
    assert_eq!(result(&pair).await.status(), 3);
    assert_eq!(writing.await.unwrap(), std::io::ErrorKind::BrokenPipe);
    let accepted = accepted.load(Ordering::SeqCst);
    assert!(accepted > 0 && accepted < 4 << 20, "{accepted} bytes were under way");
}

#[tokio::test]
async fn a_terminal_takes_keys_sizes_and_signals() {
    let size = |columns, rows| TerminalSize { columns, rows };
    // A signal interrupts a read.
    let script = "trap 'stty size' WINCH; trap 'echo interrupted' INT; echo ready; line=; \
                  while [ \"$line\" != last ]; do read line && echo \"<$line>\"; done; cat; exit 7";
    let kept = Kept::default();
    let builder = MetaService::builder(["sh", "-c", script]).log(kept.clone());
    let pair = Pair::with(&AGENT, builder.terminal(size(80, 24)).stdin(true), None).await;
    kept.wait_for(b"ready").await;
    let mut stdin = pair.service.attach().unwrap();
    stdin.write_all(b"hello\r").await.unwrap();
    kept.wait_for(b"<hello>").await;
    stdin.set_size(size(97, 31));
    kept.wait_for(b"31 97").await;
    // The key of the terminal.
    stdin.write_all(b"\x03").await.unwrap();
    kept.wait_for(b"interrupted").await;
    stdin.signal(28);
    stdin.write_all(b"last\r").await.unwrap();
    kept.wait_for(b"<last>").await;
    // The end of stdin is the end of the terminal's.
    stdin.shutdown().await.unwrap();
    assert_eq!(result(&pair).await.status(), 7);
}

#[tokio::test]
async fn a_terminal_without_stdin_has_sizes_and_no_keys() {
    let script = "trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.05; done";
    let kept = Kept::default();
    let builder = MetaService::builder(["sh", "-c", script]).log(kept.clone());
    let builder = builder.terminal(TerminalSize { columns: 80, rows: 24 });
    let pair = Pair::with(&AGENT, builder, None).await;
    kept.wait_for(b"ready").await;
    let mut stdin = pair.service.attach().unwrap();
    let refused = stdin.write_all(b"x").await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::BrokenPipe);
    stdin.set_size(TerminalSize { columns: 132, rows: 43 });
    assert_eq!(result(&pair).await.status(), 5);
    kept.wait_for(b"43 132").await;
}

#[tokio::test]
async fn a_service_of_version_1_runs_the_command_without_stdin() {
    let kept = Kept::default();
    let builder = MetaService::builder(["sh", "-c", "cat; readlink /proc/self/fd/0"]);
    let pair = Pair::with(&AGENT, builder.log(kept.clone()).extensions(false), None).await;
    assert!(result(&pair).await.success);
    assert_eq!(kept.bytes(), b"/dev/null\n");
}

/// A proxy cuts at random bytes, and the agent is killed at a random byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_on_stdin_loses_and_repeats_nothing() {
    with_seeds(200, chaos).await;
}

async fn chaos(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let content = content(random.random_range(0..900_000));
    let slow = if random.random_bool(0.3) { "head -c 100000; sleep 0.05; " } else { "" };
    let kept = Kept::default();
    let command = ["sh".to_owned(), "-c".to_owned(), format!("{slow}cat")];
    let builder = MetaService::builder(command).stdin(true).log(kept.clone());
    let count = random.random_range(1..10);
    let cuts = (0..count).map(|_| random.random_range(0..600_000)).collect();
    let mut pair = Pair::with(&AGENT, builder, Some(cuts)).await;
    let writing = tokio::spawn({
        let (stdin, content) = (pair.service.attach().unwrap(), content.clone());
        async move { write(stdin, &content).await }
    });
    if random.random_bool(0.3) {
        kept.wait_for_length(random.random_range(0..=content.len())).await;
        pair.restart_agent();
    }
    let result = timeout(TIMEOUT / 2, pair.service.result()).await;
    let Ok(result) = result else {
        panic!("no result, {} bytes of log; {}", kept.bytes().len(), pair.describe())
    };
    assert!(result.success);
    writing.await.unwrap();
    let log = kept.bytes();
    let same = log.iter().zip(&content).take_while(|(a, b)| a == b).count();
    let (got, wanted) = (log.len(), content.len());
    assert!(log == content, "{got} bytes of {wanted}, the first {same} are right");
}

/// A client behind the control socket feeds the command as the service itself does.
#[tokio::test]
async fn a_client_of_the_control_socket_feeds_the_command() {
    let kept = Kept::default();
    let builder = MetaService::builder(["cat"]).stdin(true).log(kept.clone());
    let pair = Pair::with(&AGENT, builder, None).await;
    let path = pair.directory.path().join("control.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(metaservice::control::serve("job", pair.service.clone(), listener));
    let client = metaservice::control::Client::new(path);
    let job = client.job().await.unwrap();
    assert!(job.stdin && !job.tty);

    let mut first = client.attach().await.unwrap();
    first.write_all(b"begun ").await.unwrap();
    let busy = client.attach().await.unwrap_err();
    assert_eq!(busy.code(), Some(metaservice::control::Code::Busy), "{busy}");
    kept.wait_for(b"begun ").await;
    drop(first);
    // The service notices that the client has left.
    let second = async {
        loop {
            match client.attach().await {
                Ok(second) => return second,
                Err(error) => {
                    assert_eq!(error.code(), Some(metaservice::control::Code::Busy), "{error}");
                    tokio::task::yield_now().await;
                }
            }
        }
    };
    let mut second = timeout(TIMEOUT, second).await.unwrap();
    let content = content(3_000_000);
    second.write_all(&content).await.unwrap();
    second.shutdown().await.unwrap();
    second.closed().await.unwrap();
    assert!(result(&pair).await.success);
    assert!(kept.bytes() == [b"begun ", &content[..]].concat());
    let ended = client.attach().await.unwrap_err();
    assert_eq!(ended.code(), Some(metaservice::control::Code::Refused), "{ended}");
}

/// What a command echoes is seen by a reader of the log at once.
#[tokio::test]
async fn an_echo_is_not_delayed_by_the_log() {
    let builder = MetaService::builder(["cat"]).stdin(true);
    let size = TerminalSize { columns: 80, rows: 24 };
    let (log, mut reader) = tokio::io::duplex(1000);
    let pair = Pair::with(&AGENT, builder.terminal(size).log(log), None).await;
    let mut stdin = pair.service.attach().unwrap();
    let mut delays = Vec::new();
    for key in 0..40 {
        let begun = std::time::Instant::now();
        stdin.write_all(b"x").await.unwrap();
        let mut echo = [0];
        timeout(TIMEOUT, reader.read_exact(&mut echo)).await.unwrap().unwrap();
        assert_eq!(&echo, b"x");
        delays.push(begun.elapsed());
        // Every other key comes at once, while the guest waits for a confirmation of the echo. The
        // guest has it before the next one.
        if key % 2 == 0 {
            assert!(pair.service.exec(["true"]).output().await.unwrap().status.success());
        }
    }
    delays.sort();
    println!("median {:?}, 90 % {:?}", delays[20], delays[36]);
    assert!(delays[20] < Duration::from_millis(50), "{delays:?}");
    drop(stdin);
}
