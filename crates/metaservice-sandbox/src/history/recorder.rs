//! Writes what became of a job to its directory.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use metaservice::MetaService;
use metaservice::control::{Job, JobState};
use metaservice_private::lock;
use serde_json::Value;

use super::claim::Claim;
use super::record::{Began, PastArtifact, PastJob};
use crate::blocking::block;
use crate::life::End;
use crate::report::Report;

/// The history of a job cannot be written. The job itself is as usual.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to {}", path.display())]
#[non_exhaustive]
pub struct HistoryError {
    /// The directory of the job.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub cause: io::Error,
}

/// The artifacts of a job so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Artifacts(Arc<Mutex<Vec<PastArtifact>>>);

impl Artifacts {
    pub(crate) fn add(&self, artifact: PastArtifact) {
        lock(&self.0).push(artifact);
    }
}

/// Writes the end of a job, once.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) claim: Arc<Claim>,
    pub(crate) began: Began,
    pub(crate) artifacts: Artifacts,
}

impl Recorder {
    /// Writes what became of the job. A job that is left to a later service leaves no history here.
    pub(crate) fn finish(
        self,
        report: &Report,
        service: &MetaService,
        machine: Value,
    ) -> Result<(), HistoryError> {
        if matches!(report.outcome.end, End::Left(_)) {
            self.claim.forget();
            return Ok(());
        }
        let mut job = Job::lost(self.claim.name().as_str());
        self.began.describe(&mut job);
        let status = report.status();
        job.state = if status == 0 { JobState::Succeeded } else { JobState::Failed };
        job.status = Some(status);
        job.ending = report.result.clone().and_then(|result| result.ending);
        job.agent = service.agent();
        job.contact = service.contact();
        job.log_hole = service.log_has_hole();
        job.machine = machine;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let error = report.not_started.as_ref().map(|error| text(error));
        let past = PastJob {
            end: Some(word(report.outcome.end).to_owned()),
            ended_ms: u64::try_from(now.as_millis()).ok(),
            error: error.or_else(|| report.log.as_ref().map(|error| text(error))),
            artifacts: std::mem::take(&mut lock(&self.artifacts.0)),
            console: if report.result.is_none() { report.console.clone() } else { Vec::new() },
            ..PastJob::of(job)
        };
        let path = self.claim.path();
        block(|| self.claim.write_result(&past)).map_err(|cause| {
            // Without a result, it would be lost, and a full disk would stay full.
            self.claim.forget();
            HistoryError { path, cause }
        })
    }
}

fn text(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn word(end: End) -> &'static str {
    match end {
        End::Result => "result",
        End::Killed(_) => "killed",
        End::MachineGone => "machine-gone",
        End::NotStarted => "not-started",
        End::NeverFetched => "never-fetched",
        End::AgentDead => "agent-dead",
        End::NoGuest => "no-guest",
        End::Forced(_) => "forced",
        End::Cancelled(_) => "cancelled",
        End::Left(_) => "left",
        End::Unread => "unread",
        End::Abandoned(_) => "abandoned",
    }
}
