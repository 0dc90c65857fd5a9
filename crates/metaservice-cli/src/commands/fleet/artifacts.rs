//! `metaservice artifacts`: list or fetch what a job of a queue left.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::ReadError;
use metaservice_fleet::step::{Artifact, Outcome};
use metaservice_sandbox::spec::JobSpec;
use serde_json::json;

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

A directory is fetched as a tar archive, NAME.tar.

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
    for artifact in left {
        fetched &= fetch(&stores, artifact, &directory, printer).await;
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
        let directory = wanted.to.clone().unwrap_or_else(|| PathBuf::from("."));
        fetched &= fetch(stores, artifact, &directory, printer).await;
    }
    fetched
}

/// Fetches one artifact into a directory. Returns whether it is there.
async fn fetch(stores: &Stores, artifact: &Artifact, directory: &Path, printer: Printer) -> bool {
    match try_fetch(stores, artifact, directory).await {
        Ok(path) => {
            printer.note(&format!("fetched {} to {}", artifact.path, path.display()));
            true
        }
        Err(error) => {
            printer.error(&error.context(format!("cannot fetch {}", artifact.path)));
            false
        }
    }
}

async fn try_fetch(stores: &Stores, artifact: &Artifact, directory: &Path) -> Result<PathBuf> {
    let object = artifact.object.as_ref().context("the job did not leave it")?;
    let path = directory.join(file_name(artifact));
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    // The file is not visible before it is whole.
    let new = tempfile::NamedTempFile::new_in(directory)
        .with_context(|| format!("cannot write to {}", directory.display()))?;
    let (file, temporary) = new.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    stores.get(object, &mut file).await?;
    temporary.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The last part of an artifact's path, which is no path of a directory above.
fn file_name(artifact: &Artifact) -> String {
    let last = artifact.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let last = printable(last).replace(['\n', '*', '?'], "_");
    let name = if matches!(last.as_str(), "" | "." | "..") { "artifact".to_owned() } else { last };
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
}
