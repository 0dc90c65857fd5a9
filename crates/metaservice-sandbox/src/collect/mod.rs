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

/// The artifacts that were not fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) count: usize,
    /// Whether all together are larger than they may be.
    pub(crate) exceeds: bool,
}

/// Fetches all artifacts of a job that were not fetched before. Behind the limit of all together,
/// none is fetched.
///
/// Cancellation: dropping the future may leave a thread that writes a file.
pub(crate) async fn run(
    job: &Job,
    service: &MetaService,
    progress: &mut Progress,
    report: impl Fn(News),
) -> Missing {
    let mut expanded = Vec::new();
    for artifact in job.artifacts.iter().filter(|artifact| !progress.has(artifact)) {
        expanded
            .push((artifact, expand::expand(service, artifact, job.limits.service.names).await));
    }
    let mut missing = Missing { count: 0, exceeds: false };
    let mut budget = Budget { left: job.limits.artifacts };
    for Planned { artifact, parts } in plan::plan(expanded) {
        let mut complete = true;
        let mut own = Budget { left: job.limits.service.artifact };
        for (part, error) in parts {
            let stored = match error {
                Some(error) => Err(error),
                None if missing.exceeds => Err(CollectError::TooLarge(job.limits.artifacts)),
                None => {
                    report(News::Fetching(part.clone()));
                    let limit = own.left.min(budget.left);
                    store::fetch(service, &part, limit, progress.is_stored()).await
                }
            };
            missing.exceeds |= stored.as_ref().is_err_and(|error| budget.is_exceeded(own, error));
            report(match stored {
                Ok(length) => {
                    own.take(length);
                    budget.take(length);
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
        missing.count += usize::from(!complete);
    }
    missing
}

/// The bytes that may still be fetched.
#[derive(Debug, Clone, Copy)]
struct Budget {
    left: u64,
}

impl Budget {
    const fn take(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// Whether this budget of all artifacts was too small, and not only that of the artifact.
    fn is_exceeded(self, own: Self, error: &CollectError) -> bool {
        self.left <= own.left && error.is_too_large()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_budget_is_the_one_that_is_exceeded() {
        let too_large = CollectError::TooLarge(1);
        let mut all = Budget { left: 10 };
        assert!(!all.is_exceeded(Budget { left: 9 }, &too_large));
        assert!(all.is_exceeded(Budget { left: 10 }, &too_large));
        assert!(!all.is_exceeded(Budget { left: 10 }, &CollectError::NotFound));
        all.take(8);
        assert!(all.is_exceeded(Budget { left: 9 }, &too_large));
        all.take(8);
        assert_eq!(all.left, 0);
    }
}
