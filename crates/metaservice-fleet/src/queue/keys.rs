//! The subjects of keys, and the steps in them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

use crate::name::{JobId, Tenant, WorkerName};
use crate::request::VERSION;
use crate::state::CANCELLATION;
use crate::step::Step;

/// The subject on which a worker listens.
pub(crate) fn drain_subject(worker: &WorkerName) -> String {
    format!("ms.worker.{worker}.drain")
}

pub(super) fn step_subject(id: &JobId, number: u32) -> String {
    match number {
        CANCELLATION => format!("$KV.ms_jobs.job.{id}.cancel"),
        number => format!("$KV.ms_jobs.job.{id}.{number}"),
    }
}

/// The subject of a tenant's limits.
pub(super) fn tenant_subject(tenant: &Tenant) -> String {
    format!("$KV.ms_tenants.tenant.{tenant}")
}

/// The tenant of such a subject.
pub(super) fn tenant_of(subject: &str) -> Option<Tenant> {
    subject.strip_prefix("$KV.ms_tenants.tenant.")?.parse().ok()
}

/// The subjects of all steps of a job.
pub(super) fn job_subjects(id: &JobId) -> String {
    format!("$KV.ms_jobs.job.{id}.*")
}

/// The name of an artifact's object.
pub(crate) fn object_name(id: &JobId, attempt: u32, number: usize) -> String {
    format!("{id}.{attempt}.{number}")
}

/// The name of the object of a whole log.
pub(crate) fn log_name(id: &JobId, attempt: u32) -> String {
    format!("{id}.{attempt}.log")
}

/// The subject of the mark that the object store keeps of an object: its format, not this crate's.
pub(super) fn mark_subject(object: &str) -> String {
    format!("$O.ms_files.M.{}", URL_SAFE.encode(object))
}

/// The subject of the parts of an object: the object store's format, not this crate's.
pub(super) fn content_subject(nuid: &str) -> String {
    format!("$O.ms_files.C.{nuid}")
}

/// A step, if this version can read it.
pub(super) fn read_step(json: &[u8]) -> Option<Step> {
    let step: Step = serde_json::from_slice(json).ok()?;
    (step.version == VERSION).then_some(step)
}
