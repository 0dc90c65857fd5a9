//! Copies of tar archives from standard input and to standard output.

use std::io::{Cursor, IsTerminal};
use std::ops::Range;

use anyhow::{Context, Error, Result, ensure};
use metaservice::control::Client;
use metaservice::{Destination, Form};
use metaservice_sandbox::copy::{Content, How, place};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

use super::summary::report;
use crate::output::AsyncOutput;
use crate::output::printer::{Hint, Printer};

/// How much is read at once.
const BLOCK: usize = 256 * 1024;

/// Bytes of a header in a tar archive.
const HEADER: usize = 512;

/// The position of its checksum.
const CHECKSUM: Range<usize> = 148..156;

/// Extracts the archive on standard input into the directory `path` of the guest. Members may be
/// named `./NAME` or `DIR/NAME`: they keep their paths below the directory.
///
/// # Cancellation
/// Dropping the future ends the transfer. The directory keeps the complete files.
pub(super) async fn send(client: &Client, path: &str, how: How, printer: Printer) -> Result<()> {
    let mut destination = Destination::directory(path);
    destination.set_id = how.set_id;
    let input = checked(tokio::io::stdin()).await?;
    let progress = printer.progress(path, None);
    let written = client.write(destination, progress.observer().of(input)).await;
    written.with_context(|| format!("cannot copy to {path}"))?;
    report(printer, "-", path, progress, &Content::default());
    Ok(())
}

/// Writes `path` in the guest to standard output, as an archive. A directory has its own name in
/// it, as with docker; `DIR/.` is `./`.
pub(super) async fn fetch(client: &Client, path: &str, how: How, printer: Printer) -> Result<()> {
    ensure!(
        !std::io::stdout().is_terminal(),
        "an archive is not written to a terminal: redirect it to a file or a program"
    );
    let mut read = client.read(path).form(Form::Archive);
    if how.follows(path) {
        read = read.follow(true);
    }
    if let Some(name) = place::name(path) {
        read = read.named(name);
    }
    let cannot = || format!("cannot copy {path}");
    let body = read.open().await.with_context(cannot)?.body;
    let progress = printer.progress(path, None);
    let mut stdout = AsyncOutput::new();
    let mut body = BufReader::with_capacity(BLOCK, progress.observer().of(body));
    tokio::io::copy_buf(&mut body, &mut stdout).await.with_context(cannot)?;
    stdout.flush().await.with_context(cannot)
}

/// Checks that the input begins like a tar archive.
async fn checked<R: AsyncRead + Unpin>(mut input: R) -> Result<impl AsyncRead + Unpin + use<R>> {
    let mut start = Vec::with_capacity(HEADER);
    let mut first = (&mut input).take(HEADER as u64);
    first.read_to_end(&mut start).await.context("cannot read standard input")?;
    if !begins_archive(&start) {
        let hint = "for one file, write `metaservice exec -i JOB -- sh -c 'cat > FILE'`";
        let error = Error::new(Hint(hint.to_owned()));
        return Err(error.context("standard input is not a tar archive, which \"-\" stands for"));
    }
    Ok(Cursor::new(start).chain(input))
}

/// Whether these bytes begin a tar archive: no bytes, its end, or a header with a valid checksum.
fn begins_archive(start: &[u8]) -> bool {
    if start.iter().all(|byte| *byte == 0) {
        return true;
    }
    if start.len() < HEADER {
        return false;
    }
    let (before, rest) = start.split_at(CHECKSUM.start);
    let (checksum, after) = rest.split_at(CHECKSUM.len());
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    // The checksum itself counts as blanks.
    let expected = sum(before) + sum(&[b' '; CHECKSUM.end - CHECKSUM.start]) + sum(after);
    let text = std::str::from_utf8(checksum).unwrap_or_default();
    let digits = text.trim_matches([' ', '\0']);
    u32::from_str_radix(digits, 8) == Ok(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_archive_is_refused_before_it_is_sent() {
        let mut header = [0; HEADER];
        header[0] = b'a';
        header[CHECKSUM].copy_from_slice(b"000541\0 ");
        for good in [&header[..], &[&header[..], b"more"].concat(), &[0; 2 * HEADER], b""] {
            let mut read = Vec::new();
            checked(good).await.unwrap().read_to_end(&mut read).await.unwrap();
            assert_eq!(read, good);
        }
        let changed = [&b"b"[..], &header[1..]].concat();
        for bad in [&b"hi\n"[..], &header[..HEADER - 1], &changed, &[b'x'; HEADER]] {
            let error = format!("{:#}", checked(bad).await.err().unwrap());
            assert!(error.starts_with("standard input is not a tar archive"), "{error}");
        }
    }
}
