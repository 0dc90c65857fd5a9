//! Copies from a guest to the host.

use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use metaservice::control::{BodyReader, Client, FileBody};
use metaservice::{FileHead, Form};
use metaservice_archive::{Extracted, SparseWriter};
use metaservice_sandbox::output::{Destination, Named};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

use super::archive;
use super::how::How;
use super::place::{self, Place};
use super::summary::{Content, told};
use crate::output::AsyncOutput;
use crate::output::printer::Printer;

/// How much is read at once.
const BLOCK: usize = 256 * 1024;

/// Copies `path` in the guest to a path of the host, or to standard output.
///
/// # Cancellation
/// Dropping the future removes what was written, except in a directory that existed before.
pub(super) async fn fetch(
    client: &Client,
    path: &str,
    to: Place,
    how: How,
    printer: Printer,
) -> Result<()> {
    let cannot = || format!("cannot copy {path}");
    let follow = how.follows(path);
    let to = match to {
        Place::Host(to) => to,
        _ => {
            ensure!(
                !std::io::stdout().is_terminal(),
                "an archive is not written to a terminal: redirect it to a file or a program"
            );
            let mut read = client.read(path).form(Form::Archive);
            if follow {
                read = read.follow(true);
            }
            let body = read.open().await.with_context(cannot)?.body;
            return stream(body, path, printer).await.with_context(cannot);
        }
    };
    let opened = client.read(path).form(Form::Any).follow(follow).open().await;
    let FileBody { head, body, .. } = opened.with_context(cannot)?;
    let Some(head) = head else {
        return fetch_plain(body, path, &to, printer).await.with_context(cannot);
    };
    let is_directory = head.form == Form::Archive && !head.link;
    let (target, named) = place::target(&to, place::name(path), is_directory)?;
    let progress = printer.progress(path, head.size);
    let content = if head.form == Form::Archive {
        let count = progress.counter();
        let counts = if head.link {
            archive::unpack_link(body, &target, count).await
        } else {
            archive::unpack(body, &target, how, count).await
        };
        let Extracted { files, links, left_out, .. } = counts.with_context(cannot)?;
        Content { files: Some(files), links, left_out }
    } else {
        store(progress.of(body), &target, named, (head, how)).await.with_context(cannot)?;
        Content::file()
    };
    told(printer, path, &target.display().to_string(), progress, &content);
    Ok(())
}

/// Copies a tar archive to standard output.
async fn stream(body: BodyReader, path: &str, printer: Printer) -> Result<()> {
    let progress = printer.progress(path, None);
    let mut stdout = AsyncOutput::new();
    tokio::io::copy_buf(&mut BufReader::with_capacity(BLOCK, progress.of(body)), &mut stdout)
        .await?;
    Ok(stdout.flush().await?)
}

/// Copies a file of a version 1 agent, which sends no attributes.
async fn fetch_plain(mut body: BodyReader, path: &str, to: &Path, printer: Printer) -> Result<()> {
    let (target, named) = place::target(to, place::name(path), false)?;
    let progress = printer.progress(path, None);
    let place = open(&target, named, 0o666).await?;
    let mut file = tokio::fs::File::from_std(place.file().try_clone()?);
    let bytes = tokio::io::copy(&mut body, &mut file).await?;
    file.flush().await?;
    place.keep()?;
    progress.counter()(bytes);
    told(printer, path, &target.display().to_string(), progress, &Content::file());
    Ok(())
}

/// Copies a file with its attributes.
async fn store(
    body: impl AsyncRead + Unpin,
    target: &Path,
    named: Named,
    (head, how): (FileHead, How),
) -> Result<()> {
    let place = open(target, named, 0o600).await?;
    let file = place.file().try_clone()?;
    if !place.is_file() {
        let mut stream = tokio::fs::File::from_std(file);
        tokio::io::copy_buf(&mut BufReader::with_capacity(BLOCK, body), &mut stream).await?;
        stream.flush().await?;
        return Ok(place.keep()?);
    }
    let file = fill(body, file).await?;
    file.set_permissions(std::fs::Permissions::from_mode(head.mode & how.mask()))?;
    if let Some(modified) = time(head.mtime_ns) {
        file.set_modified(modified)?;
    }
    Ok(place.keep()?)
}

/// Writes a file, with holes for blocks of zeros.
async fn fill(mut body: impl AsyncRead + Unpin, file: File) -> Result<File> {
    let mut writer = SparseWriter::default();
    let mut state = (file, Vec::with_capacity(BLOCK));
    loop {
        let (file, mut block) = state;
        block.clear();
        // Only full blocks of zeros become holes.
        (&mut body).take(BLOCK as u64).read_to_end(&mut block).await?;
        if block.is_empty() {
            writer.finish(&file)?;
            return Ok(file);
        }
        state = tokio::task::spawn_blocking(move || {
            let written = writer.write(&file, &block);
            written.map(|()| ((file, block), writer))
        })
        .await?
        .map(|(state, written)| {
            writer = written;
            state
        })?;
    }
}

async fn open(target: &Path, named: Named, mode: u32) -> Result<Destination> {
    let opened = Destination::open_async(target.to_owned(), named, mode).await;
    opened.with_context(|| format!("cannot write {}", target.display()))
}

/// The time of a file as the guest states it, or `None` if the host cannot express it.
fn time(mtime_ns: i64) -> Option<SystemTime> {
    let distance = Duration::from_nanos(mtime_ns.unsigned_abs());
    if mtime_ns < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}
