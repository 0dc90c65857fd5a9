//! `metaservice artifacts`: list or fetch what a job of a queue left.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::ReadError;
use metaservice_fleet::step::{Artifact, Outcome};
use metaservice_sandbox::copy::extract;
use metaservice_sandbox::spec::JobSpec;
use serde_json::json;

use super::places::{Target, extract_as};
use super::store::Stores;
use super::{QueueArgs, StoreArgs};
use crate::output;
use crate::output::printer::{Printer, json_text, printable};
use crate::output::table;
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice artifacts 1f2e3d4c5b6a
  metaservice artifacts 1f2e3d4c5b6a --to results

A directory is fetched as a tar archive, NAME.tar. If two artifacts have the same name, each gets its
whole path as its name: o_a_log.txt for /o/a/log.txt.

Exit status: 0, or 125 if an artifact is missing or cannot be fetched.";

/// List what a job of a queue left, or fetch it.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Artifacts {
    /// Fetch the artifacts into this directory, which is created if it does not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// The id of the job.
    #[arg(value_name = "ID")]
    pub(crate) id: JobId,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

pub(crate) async fn artifacts(args: Artifacts, printer: Printer) -> Result<ExitStatus> {
    let queue = args.queue.connect().await?;
    let job = queue.job(&args.id).await?.ok_or_else(|| ReadError::NoJob(args.id.clone()))?;
    let left = match job.outcome() {
        Some(Outcome::Finished { artifacts, .. }) => artifacts.as_slice(),
        _ => &[],
    };
    let Some(directory) = args.to else { return list(left, printer) };
    let stores = Stores::open(&queue, &args.store)?;
    let mut fetched = true;
    for (path, artifact) in paths(&directory, left).into_iter().zip(left) {
        fetched &= fetch(&stores, artifact, &Target::File(path), 0, printer).await;
    }
    Ok(if fetched { ExitStatus::SUCCESS } else { ExitStatus::FAILED })
}

fn list(artifacts: &[Artifact], printer: Printer) -> Result<ExitStatus> {
    if printer.is_json() {
        output::line(json_text(&json!(artifacts).to_string()))?;
        return Ok(ExitStatus::SUCCESS);
    }
    let head = ["PATH", "KIND", "BYTES"].map(str::to_owned).to_vec();
    let row = |artifact: &Artifact| {
        let kind = match (&artifact.object, artifact.is_directory) {
            (None, _) => "missing",
            (Some(_), true) => "directory",
            (Some(_), false) => "file",
        };
        vec![
            printable(&artifact.path),
            kind.to_owned(),
            artifact.object.as_ref().map_or(0, |object| object.bytes).to_string(),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(artifacts.iter().map(row)).collect();
    for line in table::lines(&rows) {
        output::line(line.replace('\n', " "))?;
    }
    Ok(ExitStatus::SUCCESS)
}

/// Fetches the artifacts of a job to the places that its description names.
pub(super) async fn place(
    stores: &Stores,
    spec: &JobSpec,
    artifacts: &[Artifact],
    printer: Printer,
) -> bool {
    let mut fetched = true;
    for (artifact, wanted) in artifacts.iter().zip(&spec.artifacts) {
        let target = Target::of(wanted, artifact.is_directory);
        fetched &= fetch(stores, artifact, &target, spec.max_artifact.0, printer).await;
    }
    fetched
}

/// The path of each artifact. Of those that would have the same, each is named by its whole path in
/// the guest.
fn paths(directory: &Path, left: &[Artifact]) -> Vec<PathBuf> {
    let short: Vec<_> = left.iter().map(|artifact| directory.join(file_name(artifact))).collect();
    let is_shared = |path: &PathBuf| short.iter().filter(|other| *other == path).count() > 1;
    let path = |(path, artifact): (&PathBuf, &Artifact)| {
        if is_shared(path) { directory.join(long_name(artifact)) } else { path.clone() }
    };
    short.iter().zip(left).map(path).collect()
}

/// Fetches one artifact. An archive that is extracted has files of so many bytes, at most. Returns
/// whether it is there.
async fn fetch(
    stores: &Stores,
    artifact: &Artifact,
    target: &Target,
    max: u64,
    printer: Printer,
) -> bool {
    match try_fetch(stores, artifact, target, max).await {
        Ok(()) => {
            let (Target::File(path) | Target::Into(path) | Target::As { path, .. }) = target;
            printer.note(&format!("fetched {} to {}", artifact.path, path.display()));
            true
        }
        Err(error) => {
            printer.error(&error.context(format!("cannot fetch {}", artifact.path)));
            false
        }
    }
}

async fn try_fetch(stores: &Stores, artifact: &Artifact, target: &Target, max: u64) -> Result<()> {
    let object = artifact.object.as_ref().context("the job did not leave it")?;
    let directory = &target.directory();
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    // The file is not visible before it is whole.
    let new = tempfile::NamedTempFile::new_in(directory)
        .with_context(|| format!("cannot write to {}", directory.display()))?;
    let (file, temporary) = new.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    stores.get(object, &mut file).await?;
    let archive = match target {
        Target::File(path) => {
            let persisted = temporary.persist(path);
            return persisted.with_context(|| format!("cannot write {}", path.display()));
        }
        _ => std::fs::File::open(&temporary)?,
    };
    let target = target.clone();
    let extracting = tokio::task::spawn_blocking(move || match target {
        Target::As { path, name } => extract_as(&archive, &path, &name, max),
        target => Ok(extract(&archive, &target.directory(), max)?),
    });
    extracting.await?
}

/// The last part of an artifact's path.
fn file_name(artifact: &Artifact) -> String {
    let last = artifact.path.trim_end_matches('/').rsplit('/').next();
    name_of(artifact, last.unwrap_or_default())
}

/// All of an artifact's path, in one name.
fn long_name(artifact: &Artifact) -> String {
    name_of(artifact, artifact.path.trim_matches('/'))
}

/// A name of a file, which is no path of another directory.
fn name_of(artifact: &Artifact, text: &str) -> String {
    let text = printable(text).replace(['/', '\n', '*', '?'], "_");
    let name = if matches!(text.as_str(), "" | "." | "..") { "artifact".to_owned() } else { text };
    if artifact.is_directory { format!("{name}.tar") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_an_artifact_never_leaves_the_directory() {
        let name = |path: &str, is_directory| {
            let artifact =
                Artifact { path: path.to_owned(), object: None, is_directory, error: None };
            file_name(&artifact)
        };
        assert_eq!(name("/out/report.xml", false), "report.xml");
        assert_eq!(name("/out/", true), "out.tar");
        assert_eq!(name("/tmp/*.log", true), "_.log.tar");
        for wrong in ["..", "/..", "", "/", "a/.."] {
            assert_eq!(name(wrong, false), "artifact");
        }
        assert_eq!(name("/a\u{1b}[2J", false), "a\u{fffd}[2J");
    }

    #[test]
    fn artifacts_of_the_same_name_do_not_replace_each_other() {
        let artifact = |path: &str| {
            let path = path.to_owned();
            Artifact { path, object: None, is_directory: false, error: None }
        };
        let all = ["/o/a/s.txt", "/o/b/s.txt", "/o/t.txt", "/../s.txt"].map(artifact);
        let there = Path::new("results");
        let names = ["o_a_s.txt", "o_b_s.txt", "t.txt", ".._s.txt"];
        assert_eq!(paths(there, &all), names.map(|name| there.join(name)));
    }
}
