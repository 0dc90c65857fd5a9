//! The host of a crowd: a separate process that serves many jobs and answers questions about them
//! on its standard input.
//!
//! A connection begins with the number of its job, in four bytes. A real host knows the job by the
//! socket of the machine.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use anyhow::Context as _;
use metaservice::MetaService;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::guests::LINE;
use crate::statistics::percentile;

/// Serves until its standard input ends.
pub(crate) fn host(jobs: usize) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut services = Vec::with_capacity(jobs);
        let mut delivered = Vec::with_capacity(jobs);
        for _ in 0..jobs {
            let count = Arc::new(AtomicU64::new(0));
            services.push(MetaService::builder(["true"]).log(Counter(Arc::clone(&count))).start()?);
            delivered.push(count);
        }
        let services: Arc<[MetaService]> = services.into();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        tokio::spawn(accept(listener, Arc::clone(&services)));
        let mut questions = BufReader::new(tokio::io::stdin()).lines();
        while let Some(question) = questions.next_line().await? {
            match question.split_once(' ') {
                Some(("act", count)) => act(&services, count.parse()?).await?,
                _ => {
                    let lines =
                        |count: &Arc<AtomicU64>| count.load(Ordering::Relaxed) / LINE as u64;
                    let counts = delivered.iter().map(lines);
                    let least = counts.clone().min().unwrap_or(0);
                    let most = counts.clone().max().unwrap_or(0);
                    println!("{least} {most} {}", counts.sum::<u64>());
                }
            }
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, services: Arc<[MetaService]>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, Arc::clone(&services)));
    }
}

async fn serve(mut stream: TcpStream, services: Arc<[MetaService]>) {
    let Ok(job) = stream.read_u32().await else { return };
    let Some(service) = services.get(job as usize).cloned() else { return };
    drop(services);
    let _ = service.serve_connection(stream).await;
}

/// Sends actions to random jobs. Prints the median and the 99th percentile in ms.
async fn act(services: &[MetaService], count: usize) -> anyhow::Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        #[allow(clippy::cast_possible_truncation)]
        let service = &services[(state % services.len() as u64) as usize];
        let begun = Instant::now();
        service.kill().await?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let median = percentile(&mut times, 0.5).context("no action")?;
    println!("{median} {}", percentile(&mut times, 0.99).context("no action")?);
    Ok(())
}

/// A log sink that counts.
struct Counter(Arc<AtomicU64>);

impl AsyncWrite for Counter {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.fetch_add(buf.len() as u64, Ordering::Relaxed);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
