//! What fuzz targets need of the private functions that read messages.

use crate::log::Chunk;
use crate::name::Tenant;
use crate::queue::StoredStep;
use crate::state::ServerTime;
use crate::step::Renewal;
use crate::tenants::TenantLimits;
use crate::{queue, tunnel};

/// The step in a message of the bucket of jobs.
#[must_use]
pub fn step(subject: &str, json: &[u8], sequence: u64, time: ServerTime) -> Option<StoredStep> {
    queue::stored_step(subject, json, sequence, time)
}

/// The renewal in a message of the bucket of leases.
#[must_use]
pub fn renewal(subject: &str, json: &[u8]) -> Option<Renewal> {
    queue::stored_renewal(subject, json)
}

/// The limits in a message of the bucket of tenants.
#[must_use]
pub fn limits(subject: &str, json: &[u8]) -> Option<(Tenant, TenantLimits)> {
    queue::stored_limits(subject, json)
}

/// Whether the server says that the user may not publish there.
#[must_use]
pub fn is_denial(error: &str, subject: &str) -> bool {
    queue::is_denial(error, subject)
}

/// What a reader of a log at this offset has not read yet.
#[must_use]
pub fn unread(chunk: Chunk, offset: u64) -> Option<Chunk> {
    chunk.unread(offset)
}

/// The name of a connection in the subject that asks for it.
#[must_use]
pub fn connection(subject: &str) -> Option<&str> {
    tunnel::name(subject)
}

/// Whether a worker may answer to this subject.
#[must_use]
pub fn is_inbox(subject: &str) -> bool {
    tunnel::is_inbox(subject)
}
