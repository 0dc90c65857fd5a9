//! The subjects of keys, and the steps in them.

use crate::name::{JobId, WorkerName};
use crate::request::VERSION;
use crate::step::Step;

/// The subject on which a worker listens.
pub(crate) fn drain_subject(worker: &WorkerName) -> String {
    format!("ms.worker.{worker}.drain")
}

pub(super) fn step_subject(id: &JobId, number: u32) -> String {
    format!("$KV.ms_jobs.job.{id}.{number}")
}

/// A step, if this version can read it.
pub(super) fn read_step(json: &[u8]) -> Option<Step> {
    let step: Step = serde_json::from_slice(json).ok()?;
    (step.version == VERSION).then_some(step)
}
