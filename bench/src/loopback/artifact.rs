//! Measures an artifact: a file from the guest to temporary storage, both in memory.

use std::io::Write;
use std::time::Instant;

use metaservice::MetaService;

use super::pair::{Pair, Speaks};
use super::{BYTES, QUICK_BYTES, raw};
use crate::measure::{Better, Goal, Measure, Role, Setting};

/// A directory in memory.
pub(super) const MEMORY: &str = "/dev/shm";

pub(super) fn prepare(setting: &Setting) -> anyhow::Result<Measure> {
    let bytes = setting.pick(QUICK_BYTES, BYTES);
    let directory = tempfile::tempdir_in(MEMORY)?;
    let path = directory.path().join("file");
    fill(&path, bytes)?;
    let buffer = raw::best_buffer(QUICK_BYTES)?;
    let builder =
        MetaService::builder(["sleep", "100000"]).temporary_directory(directory.path().to_owned());
    let pair = Pair::start(setting.agent()?, builder, Speaks::Extensions)?;
    let how = format!(
        "`read(..).spool()` fetches a file of {} MiB from memory (tmpfs) into an unnamed file in \
         memory, and checks its digest. *Raw TCP* is two threads with buffers of {} KiB: one reads \
         the file and writes to a connection, the other reads the connection and writes such a \
         file.",
        bytes >> 20,
        buffer >> 10,
    );
    let (from, into) = (path.clone(), directory.path().to_owned());
    Ok(Measure::new("Artifact into a file in memory", how)
        .quantity("rate", "MB/s", Better::More)
        .subject("raw TCP into a file", Role::Limit, move || {
            Ok(vec![("rate", raw::copy_file(&from, &into, buffer)?)])
        })
        .subject("artifact", Role::Metaservice, move || {
            // Moved into the closure, so that the directory exists as long as the measure.
            let path = directory.path().join("file");
            let begun = Instant::now();
            let artifact = pair.task(async move |service| {
                Ok(service.read(path.to_string_lossy()).spool().await?)
            })?;
            let rate = raw::rate(bytes, begun);
            anyhow::ensure!(artifact.len() == bytes, "{} of {bytes} bytes came", artifact.len());
            Ok(vec![("rate", rate)])
        })
        .goal(Goal::ratio("artifact", "rate", 0.7, "raw TCP into a file")))
}

/// Writes bytes that cannot be compressed.
fn fill(path: &std::path::Path, bytes: u64) -> anyhow::Result<()> {
    let mut file = std::fs::File::create(path)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0; 1 << 20];
    for word in block.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_ne_bytes());
    }
    let mut left = bytes;
    while left > 0 {
        let count = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&block[..count])?;
        left -= count as u64;
    }
    Ok(())
}
