//! Measures a stream into a command and out of it at the same time.

use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use metaservice::MetaService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::pair::{Pair, Speaks};
use super::{QUICK_BYTES, raw};
use crate::measure::{Better, Goal, Measure, Role, Setting};

/// The size of one write and of one read.
const BLOCK: usize = 256 * 1024;

pub(super) fn prepare(setting: &Setting) -> anyhow::Result<Measure> {
    let bytes: u64 = setting.pick(64 << 20, 256 << 20);
    let agent = setting.agent()?;
    let buffer = raw::best_buffer(QUICK_BYTES)?;
    let second = Pair::idle(agent)?;
    let first = MetaService::builder(["sleep", "100000"]);
    let first = Pair::start(agent, first, Speaks::Version1)?;
    let how = format!(
        "`exec([\"cat\"])`: {} MiB are written to its standard input and read back from its \
         standard output at the same time. The rate is that of one direction. *Version 1* is the \
         same agent with a host that announces no extension: blocks of 16 KiB in windows of 64 \
         KiB. *Raw TCP* is one direction alone, with one thread on each side. The writer and the \
         reader are tasks of the runtime that serves.",
        bytes >> 20,
    );
    Ok(Measure::new("Shell: `cat`, both directions at once", how)
        .quantity("rate", "MB/s", Better::More)
        .subject("raw TCP", Role::Limit, move || Ok(vec![("rate", raw::copy(2 * bytes, buffer)?)]))
        .subject("shell", Role::Metaservice, move || Ok(vec![("rate", cat(&second, bytes)?)]))
        .subject("shell, version 1", Role::Metaservice, move || {
            Ok(vec![("rate", cat(&first, bytes)?)])
        })
        .goal(Goal::ratio("shell", "rate", 0.15, "raw TCP"))
        .goal(Goal::ratio("shell, version 1", "rate", 0.06, "raw TCP")))
}

fn cat(pair: &Pair, bytes: u64) -> anyhow::Result<f64> {
    pair.task(async move |service| {
        let mut shell = service.exec(["cat"]).spawn().await?;
        let mut input = shell.stdin.take().context("a shell has a standard input")?;
        let mut output = shell.stdout.take().context("a shell has a standard output")?;
        let begun = Instant::now();
        let write = tokio::spawn(async move {
            let block = Bytes::from(vec![7; BLOCK]);
            let mut left = bytes;
            while left > 0 {
                let count = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                input.write_all(&block[..count]).await?;
                left -= count as u64;
            }
            input.shutdown().await
        });
        let mut room = vec![0; BLOCK];
        let mut come = 0;
        loop {
            match output.read(&mut room).await? {
                0 => break,
                count => come += count as u64,
            }
        }
        let rate = raw::rate(bytes, begun);
        write.await??;
        anyhow::ensure!(
            shell.wait().await?.success() && come == bytes,
            "{come} of {bytes} bytes came"
        );
        Ok(rate)
    })
}
