//! `metaservice ls [-l] [-h] [-R] JOB PATH`: lists a directory in the guest.
//!
//! A version 1 agent can only list the regular files below a directory. For such an agent, the
//! entries of a directory are the first components of their paths. Directories without files are
//! missing.

mod listing;

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};

use anyhow::{Context, Error, Result, bail};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use futures_util::TryStreamExt;
use metaservice::DirectoryEntry;
use metaservice::control::{Client, ClientError, Code};
use serde_json::json;

use self::listing::{Columns, Sizes};
use super::fleet::MaybeQueue;
use crate::completions;
use crate::output::Output;
use crate::output::printer::{Hint, Printer, json_text};
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice ls -l build /var/log
  metaservice ls -lh build:/var/log
  metaservice ls --queue local 1f2e3d4c5b6a /tmp";

/// List a directory of the guest.
///
/// With --queue, JOB is the id of a job of that queue, on whatever host it runs.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
#[command(disable_help_flag = true)]
pub(crate) struct Ls {
    /// Show mode, owner, size and time.
    #[arg(short)]
    pub(crate) long: bool,
    /// With -l, print sizes as 1.5K, 234M, 2.0G.
    #[arg(short = 'h', long)]
    pub(crate) human: bool,
    /// Accepted for compatibility: all entries are always listed.
    #[arg(short, long, hide = true)]
    pub(crate) all: bool,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    pub(crate) help: Option<bool>,
    /// List the directories below too.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// The name of the job, or JOB:PATH.
    #[arg(value_name = "JOB", add = ArgValueCompleter::new(completions::jobs_and_directories))]
    pub(crate) job: String,
    /// The directory in the guest.
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<String>,
    #[command(flatten)]
    pub(crate) queue: MaybeQueue,
}

/// How many lines of a long listing are aligned together.
const ALIGNED: usize = 1000;

/// How many entries are sorted together. A larger directory is sorted in parts.
const SORTED: usize = 100_000;

/// How many bytes of names are sorted together.
const SORTED_BYTES: usize = 16 * 1024 * 1024;

pub(crate) async fn ls(args: Ls, printer: Printer) -> Result<ExitStatus> {
    let (job, path) = place(args.job, args.path)?;
    let client = args.queue.reach_briefly(&job, printer).await?;
    let cannot = || format!("cannot list {path}");
    let mut entries = match client.list(&*path).recursive(args.recursive).entries().await {
        Ok(entries) => entries,
        Err(ClientError::Refused { code: Code::Unsupported, .. }) if args.long => {
            bail!(
                "the guest's agent speaks version 1 of the protocol: -l needs one that can 'list'"
            );
        }
        Err(ClientError::Refused { code: Code::Unsupported, .. }) => {
            let names = plain(&client, &path, args.recursive).await.with_context(cannot)?;
            return show_names(&names, printer);
        }
        Err(error) => return Err(error).with_context(cannot),
    };
    let mut stdout = Output::lock();
    let sanitize = std::io::stdout().is_terminal();
    let now = std::time::SystemTime::now();
    let sizes = if args.human { Sizes::Human } else { Sizes::Bytes };
    let long = args.long.then_some(sizes);
    let mut waiting: Vec<DirectoryEntry> = Vec::new();
    let (mut first, mut all, mut kept) = (true, Vec::<DirectoryEntry>::new(), 0);
    while let Some(entry) = entries.try_next().await.with_context(cannot)? {
        if printer.is_json() {
            // The entries are printed as they arrive. The end of the array follows.
            let text = json_text(&json!(entry).to_string());
            write!(stdout, "{}{text}", if first { "[" } else { ",\n" })?;
            first = false;
        } else if args.recursive {
            // A directory comes before its content, so the order of arrival is kept.
            waiting.push(entry);
            if waiting.len() == ALIGNED {
                show(&mut stdout, &mut waiting, long, sanitize, now)?;
            }
        } else {
            kept += entry.path.len() + entry.target.as_ref().map_or(0, String::len);
            all.push(entry);
            if all.len() == SORTED || kept > SORTED_BYTES {
                kept = 0;
                all.sort_by(|a, b| a.path.cmp(&b.path));
                show(&mut stdout, &mut all, long, sanitize, now)?;
            }
        }
    }
    if printer.is_json() {
        writeln!(stdout, "{}", if first { "[]" } else { "]" })?;
    } else {
        all.sort_by(|a, b| a.path.cmp(&b.path));
        waiting.append(&mut all);
        show(&mut stdout, &mut waiting, long, sanitize, now)?;
    }
    stdout.flush()?;
    Ok(ExitStatus::SUCCESS)
}

/// Parses `JOB PATH`, or `JOB:PATH` like `cp`.
fn place(job: String, path: Option<String>) -> Result<(String, String)> {
    match (job.split_once(':'), path) {
        (None, Some(path)) => Ok((job, path)),
        (Some((job, path)), None) if !job.is_empty() && !path.is_empty() => {
            Ok((job.to_owned(), path.to_owned()))
        }
        (None, None) => {
            let hint = Hint(format!("write `metaservice ls {job} /`"));
            Err(Error::new(hint).context("ls needs a directory"))
        }
        (Some((name, in_job)), Some(_)) if !name.is_empty() && !in_job.is_empty() => {
            bail!("the directory is given twice, in {job:?} and after it")
        }
        (Some(_), _) => bail!("{job:?} is not JOB:PATH"),
    }
}

fn show(
    to: &mut impl Write,
    entries: &mut Vec<DirectoryEntry>,
    long: Option<Sizes>,
    sanitize: bool,
    now: std::time::SystemTime,
) -> std::io::Result<()> {
    let columns = Columns::of(entries, long.unwrap_or_default());
    for entry in entries.drain(..) {
        if long.is_some() {
            writeln!(to, "{}", columns.line(&entry, now))?;
        } else {
            writeln!(to, "{}", listing::name(&entry.path, sanitize))?;
        }
    }
    Ok(())
}

/// Lists a directory with a version 1 agent.
async fn plain(client: &Client, path: &str, recursive: bool) -> Result<Vec<String>, ClientError> {
    let files = client.list(path).files().await?;
    let directory = path.trim_end_matches('/');
    let below = |file: &str| match file.strip_prefix(directory) {
        Some(below) => below.trim_start_matches('/').to_owned(),
        None => file.to_owned(),
    };
    let below = files.iter().map(|file| below(file));
    if recursive {
        return Ok(below.collect());
    }
    let first = below.filter_map(|path| path.split('/').next().map(str::to_owned));
    Ok(first.collect::<BTreeSet<_>>().into_iter().collect())
}

fn show_names(names: &[String], printer: Printer) -> Result<ExitStatus> {
    let mut stdout = Output::lock();
    let sanitize = std::io::stdout().is_terminal();
    if printer.is_json() {
        writeln!(stdout, "{}", json_text(&json!(names).to_string()))?;
        return Ok(ExitStatus::SUCCESS);
    }
    for path in names {
        writeln!(stdout, "{}", listing::name(path, sanitize))?;
    }
    Ok(ExitStatus::SUCCESS)
}
