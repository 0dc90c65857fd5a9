//! Fetches artifacts, and stores each under the name that the user gave.
//!
//! First, the patterns of globs are expanded, so that two artifacts never write one path. Then each
//! is fetched. If an artifact cannot be fetched, its destination is left unchanged; a directory
//! that existed before may have the files that were complete.

mod error;
mod expand;
mod plan;
mod store;

use metaservice::MetaService;

use crate::job::{Artifact, Job};
use crate::progress::Progress;

pub use self::error::CollectError;
use self::plan::Planned;

/// What happens to an artifact, or to a part of one.
#[derive(Debug)]
pub(crate) enum News {
    /// It is being fetched.
    Fetching(Artifact),
    /// It is at its destination, and has this many bytes.
    Fetched { artifact: Artifact, length: u64 },
    /// It was not fetched.
    NotFetched { artifact: Artifact, error: CollectError },
}

/// Fetches all artifacts of a job that were not fetched before. Returns how many are missing.
///
/// Cancellation: dropping the future may leave a thread that writes a file.
pub(crate) async fn run(
    job: &Job,
    service: &MetaService,
    progress: &mut Progress,
    report: impl Fn(News),
) -> usize {
    let mut expanded = Vec::new();
    for artifact in job.artifacts.iter().filter(|artifact| !progress.has(artifact)) {
        expanded
            .push((artifact, expand::expand(service, artifact, job.limits.service.names).await));
    }
    let mut missing = 0;
    for Planned { artifact, parts } in plan::plan(expanded) {
        let mut complete = true;
        let mut left = job.limits.service.artifact;
        for (part, error) in parts {
            let stored = match error {
                Some(error) => Err(error),
                None => {
                    report(News::Fetching(part.clone()));
                    store::fetch(service, &part, left, progress.is_stored()).await
                }
            };
            report(match stored {
                Ok(length) => {
                    left = left.saturating_sub(length);
                    News::Fetched { artifact: part, length }
                }
                Err(error) => {
                    complete = false;
                    News::NotFetched { artifact: part, error }
                }
            });
        }
        if complete && let Err(error) = progress.fetched(artifact) {
            complete = false;
            let (artifact, error) = (artifact.clone(), error.into());
            report(News::NotFetched { artifact, error });
        }
        missing += usize::from(!complete);
    }
    missing
}
