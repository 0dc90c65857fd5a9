//! Which ended jobs are kept. Decides by values alone.

use std::time::{Duration, SystemTime};

use crate::job::JobName;

/// How many ended jobs are kept, how long, and how large they may be together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keep {
    /// Their number.
    pub jobs: u64,
    /// How long ago they ended.
    pub age: Duration,
    /// Bytes on the disk of all of them.
    pub size: u64,
}

impl Default for Keep {
    fn default() -> Self {
        Self { jobs: 100, age: Duration::from_secs(30 * 24 * 60 * 60), size: 2 << 30 }
    }
}

/// A job that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: JobName,
    pub(super) ended: SystemTime,
    /// Bytes on the disk.
    pub(super) size: u64,
}

/// The jobs that are not kept, the oldest first. Of two jobs, the one that ended later is kept.
pub(super) fn expired(mut jobs: Vec<Candidate>, keep: &Keep, now: SystemTime) -> Vec<JobName> {
    jobs.sort_by(|a, b| b.ended.cmp(&a.ended).then_with(|| b.name.cmp(&a.name)));
    let (mut count, mut size) = (0, 0_u64);
    let kept = jobs.iter().take_while(|job| {
        count += 1;
        size = size.saturating_add(job.size);
        // A clock that was set back makes no job old.
        let age = now.duration_since(job.ended).unwrap_or_default();
        count <= keep.jobs && size <= keep.size && age <= keep.age
    });
    let kept = kept.count();
    jobs.drain(kept..).rev().map(|job| job.name).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn job(number: usize, ended: u64, size: u64) -> Candidate {
        let name = format!("job-{number}").parse().unwrap();
        Candidate { name, ended: SystemTime::UNIX_EPOCH + Duration::from_secs(ended), size }
    }

    proptest! {
        #[test]
        fn the_newest_jobs_within_the_limits_are_kept(
            jobs in proptest::collection::vec((0_u64..1000, 0_u64..100), 0..40),
            (most, age, size) in (0_u64..30, 1_u64..1000, 0_u64..1500),
        ) {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
            let keep = Keep { jobs: most, age: Duration::from_secs(age), size };
            let all: Vec<_> =
                jobs.iter().enumerate().map(|(n, (ended, size))| job(n, *ended, *size)).collect();
            let gone = expired(all.clone(), &keep, now);
            let (gone, mut kept): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|job| gone.contains(&job.name));
            let fits = |jobs: &[Candidate]| {
                jobs.len() as u64 <= keep.jobs
                    && jobs.iter().map(|job| job.size).sum::<u64>() <= keep.size
                    && jobs.iter().all(|job| now.duration_since(job.ended).unwrap() <= keep.age)
            };
            prop_assert!(fits(&kept));
            // No job that is gone ended later than one that is kept, and one more is too many.
            let newest = gone.iter().max_by_key(|job| (job.ended, job.name.clone()));
            if let Some(newest) = newest {
                prop_assert!(kept.iter().all(|job| job.ended >= newest.ended));
                kept.push(newest.clone());
                prop_assert!(!fits(&kept));
            }
        }
    }

    #[test]
    fn a_clock_that_was_set_back_removes_nothing() {
        let future = vec![job(1, 10_000, 1), job(2, 20_000, 1)];
        let keep = Keep { age: Duration::from_secs(1), ..Keep::default() };
        assert!(expired(future, &keep, SystemTime::UNIX_EPOCH).is_empty());
    }
}
