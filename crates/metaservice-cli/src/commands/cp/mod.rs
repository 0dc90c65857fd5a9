//! `metaservice cp SRC DEST`: copies files and directories between a guest and the host, with the
//! rules of `docker cp`.
//!
//! The sandbox copies. This module owns the two places, archives on the standard streams, and the
//! words about a copy.

mod place;
mod stream;
mod summary;

use std::path::Path;

use anyhow::{Error, Result, bail};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use metaservice::control::Client;
use metaservice_sandbox::copy::{self, CopyError, Fetched, GuestTarget, How};

use self::place::Place;
use self::summary::report;
use super::fleet::MaybeQueue;
use crate::completions;
use crate::interrupts::Interrupts;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice cp build:/var/log/messages .
  metaservice cp ./site/. build:/srv/www
  metaservice cp build:/etc - | tar t
  metaservice cp --queue local 1f2e3d4c5b6a:/etc/hostname .

The rules are those of docker cp:
  - If DEST is a directory, the copy is placed in it, under its own name.
  - If DEST does not exist, the copy gets this name. The directory above it must exist.
  - DIR/. copies the content of DIR.
  - Links are copied as links. -L, or a slash at the end, copies the target of SRC.
  - \"-\" is a tar archive on standard input or output. The names in it begin with the name of the
    directory. With DIR/., they begin with ./

Modes, times and holes are kept. Sockets, FIFOs and devices are left out, and so are file systems of
the kernel (/proc, /sys) unless SRC is in one. A note says so.

A file at DEST, or a link to one, is replaced when the copy is complete. A device, a pipe or
/dev/stdout, or a link to one, gets the bytes.";

/// Copy files and directories from or to the guest.
///
/// With --queue, JOB is the id of a job of that queue, on whatever host it runs.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Cp {
    /// If SRC is a link, copy its target.
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// Keep set-user-id and set-group-id bits.
    #[arg(long)]
    pub(crate) set_id: bool,
    /// The source: JOB:PATH, a path of the host, or "-" for a tar archive on standard input.
    #[arg(value_name = "SRC", add = ArgValueCompleter::new(completions::places))]
    pub(crate) source: String,
    /// The destination: JOB:PATH, a path of the host, or "-" for a tar archive on standard output.
    #[arg(value_name = "DEST", add = ArgValueCompleter::new(completions::places))]
    pub(crate) destination: String,
    #[command(flatten)]
    pub(crate) queue: MaybeQueue,
}

pub(crate) async fn cp(args: Cp, printer: Printer) -> Result<ExitStatus> {
    let source = Place::parse(&args.source)?;
    let destination = Place::parse(&args.destination)?;
    let queue = args.queue;
    let mut how = How::default();
    (how.follow, how.set_id) = (args.follow_link, args.set_id);
    let mut interrupts = Interrupts::listen()?;
    let copying = async {
        match (source, destination) {
            (Place::Guest { .. }, Place::Guest { .. }) => {
                bail!("SRC and DEST are both in a guest: copy to the host, and from there")
            }
            (Place::Guest { job, path }, to) => {
                let client = queue.reach(&job, printer).await?;
                match to {
                    Place::Host(to) => fetch(&client, &path, &to, how, printer).await,
                    _ => stream::fetch(&client, &path, how, printer).await,
                }
            }
            (from, Place::Guest { job, path }) => {
                let client = queue.reach(&job, printer).await?;
                match from {
                    Place::Host(from) => send(&client, &from, &path, how, printer).await,
                    _ => stream::send(&client, &path, how, printer).await,
                }
            }
            _ => bail!("one of SRC and DEST must be in a guest, as JOB:PATH"),
        }
    };
    // Dropping a copy removes its incomplete files.
    tokio::select! {
        copied = copying => copied.map(|()| ExitStatus::SUCCESS),
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}

async fn fetch(client: &Client, path: &str, to: &Path, how: How, printer: Printer) -> Result<()> {
    let progress = printer.progress(path, None);
    let fetched = copy::fetch(client, path, to, how, &progress.observer()).await;
    let Fetched { target, content, .. } =
        fetched.map_err(|error| failed(error, format!("cannot copy {path}")))?;
    report(printer, path, &target.display().to_string(), progress, &content);
    Ok(())
}

async fn send(client: &Client, from: &Path, path: &str, how: How, printer: Printer) -> Result<()> {
    let text = from.to_string_lossy();
    let progress = printer.progress(&text, None);
    let to = GuestTarget::path(path, from);
    let sent = copy::send(client, from, to, how, &progress.observer()).await;
    let content = sent.map_err(|error| failed(error, format!("cannot copy to {path}")))?;
    report(printer, &text, path, progress, &content);
    Ok(())
}

/// An error of a copy. One about the two places says enough itself.
fn failed(error: CopyError, what: String) -> Error {
    match error {
        error @ (CopyError::Place(_) | CopyError::Kind(_) | CopyError::Read { .. }) => error.into(),
        error => Error::new(error).context(what),
    }
}
