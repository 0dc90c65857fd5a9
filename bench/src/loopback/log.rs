//! Measures the log: the output of a command to a log sink that discards it.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;
use std::{io, path::Path};

use metaservice_private::lock;

use metaservice::MetaService;
use tokio::io::AsyncWrite;

use super::pair::{Pair, Speaks};
use super::{BYTES, QUICK_BYTES, raw, source_words};
use crate::measure::{Better, Goal, Measure, Role, Setting, Values};

pub(super) fn prepare(setting: &Setting) -> anyhow::Result<Measure> {
    let bytes = setting.pick(QUICK_BYTES, 2 * BYTES);
    let agent = setting.agent()?.to_owned();
    let buffer = raw::best_buffer(QUICK_BYTES)?;
    let how = format!(
        "A command writes {} MiB to its standard output in writes of 256 KiB. The agent sends them \
         over loopback as the log of the job, and the service writes them to a log sink that \
         discards them. The time is from the first byte at the sink to the result, which comes \
         after the log has been confirmed. *Raw TCP* is one thread that writes and one that reads, \
         with buffers of {} KiB, the best of 64, 256 and 1024. With *stderr separate*, the guest \
         has a pipe for each output. *Pipe and raw TCP*: the same command writes into a pipe, and \
         a thread copies the pipe to the connection.",
        bytes >> 20,
        buffer >> 10,
    );
    Ok(Measure::new("Log to a null sink", how)
        .quantity("rate", "MB/s", Better::More)
        .subject("raw TCP", Role::Limit, move || Ok(vec![("rate", raw::copy(bytes, buffer)?)]))
        .subject("log", Role::Metaservice, {
            let agent = agent.clone();
            move || log(&agent, bytes, false)
        })
        .subject("log, stderr separate", Role::Metaservice, move || log(&agent, bytes, true))
        .subject("pipe and raw TCP", Role::Limit, move || {
            Ok(vec![("rate", raw::copy_piped(bytes, buffer)?)])
        })
        .goal(Goal::ratio("log", "rate", 0.8, "raw TCP")))
}

fn log(agent: &Path, bytes: u64, separate: bool) -> anyhow::Result<Values> {
    let sink = Null::default();
    let seen = Arc::clone(&sink.0);
    let builder = MetaService::builder(source_words(bytes)).separate(separate).log(sink);
    let pair = Pair::start(agent, builder, Speaks::Extensions)?;
    let result = pair.runtime.block_on(pair.service.result());
    anyhow::ensure!(result.success, "the command failed");
    let seen = *lock(&seen);
    anyhow::ensure!(seen.bytes == bytes, "{} of {bytes} bytes came", seen.bytes);
    let begun = seen.first.ok_or_else(|| anyhow::anyhow!("nothing came"))?;
    Ok(vec![("rate", raw::rate(bytes, begun))])
}

#[derive(Clone, Copy, Default)]
struct Seen {
    bytes: u64,
    first: Option<Instant>,
}

/// A log sink that counts and discards.
#[derive(Default)]
struct Null(Arc<Mutex<Seen>>);

impl AsyncWrite for Null {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut seen = lock(&self.0);
        seen.first.get_or_insert_with(Instant::now);
        seen.bytes += buf.len() as u64;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
