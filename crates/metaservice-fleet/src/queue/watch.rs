//! Readers of buckets: what is there, and what comes.

use bytes::Bytes;

use super::connection::{JOBS, LEASES, LOGS, OBJECTS, Queue, TENANTS};
use super::error::ReadError;
use super::keys::{read_step, tenant_of};
use super::messages::{Messages, Read};
use crate::name::{JobId, Tenant};
use crate::state::{CANCELLATION, ServerTime, Stored};
use crate::step::{Change, Renewal};
use crate::tenants::TenantLimits;

/// A step, as the server stored it.
#[derive(Debug, Clone)]
pub struct StoredStep {
    /// The job.
    pub id: JobId,
    /// Where it is stored.
    pub at: Stored,
    /// What it changes; `None`: this version cannot read it.
    pub change: Option<Change>,
}

/// The steps of jobs, in the order in which the server stored them.
#[derive(Debug)]
pub struct Steps(Messages);

impl Steps {
    pub(super) async fn open(queue: &Queue, subject: String) -> Result<Self, ReadError> {
        Messages::open(queue, JOBS, subject).await.map(Self)
    }

    /// Whether all steps were read that were there when the reader looked last.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.0.is_caught_up()
    }

    /// The next step. Waits for it.
    ///
    /// Cancellation: no step is lost.
    ///
    /// # Errors
    /// When no server answers. The next call tries it again.
    pub async fn next(&mut self) -> Result<StoredStep, ReadError> {
        loop {
            let Read { message, sequence, time } = self.0.next().await?;
            let step = stored_step(message.subject.as_str(), &message.payload, sequence, time);
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }
}

/// The step in a message, which the server stored there. `None`: its subject is that of no step.
pub(crate) fn stored_step(
    subject: &str,
    json: &[u8],
    sequence: u64,
    time: ServerTime,
) -> Option<StoredStep> {
    let (id, number) = key(subject)?;
    let change = match number {
        // The key says it all.
        CANCELLATION => Some(Change::Cancelled),
        _ => read_step(json).map(|step| step.change),
    };
    Some(StoredStep { id, at: Stored { number, sequence, time }, change })
}

/// The job and the number of a step's subject.
fn key(subject: &str) -> Option<(JobId, u32)> {
    let (id, number) = subject.strip_prefix("$KV.ms_jobs.job.")?.split_once('.')?;
    let number = match number {
        "cancel" => CANCELLATION,
        number => number.parse().ok().filter(|number| *number != CANCELLATION)?,
    };
    Some((id.parse().ok()?, number))
}

/// What the subject of a lease begins with. The name of the worker follows.
pub(super) const LEASE_HEAD: &str = "$KV.ms_leases.lease.";

/// The lease of a worker, as the server stored it.
#[derive(Debug, Clone)]
pub(crate) struct HeldLease {
    /// The name of the worker.
    pub(crate) name: String,
    /// The number of the renewal in the bucket.
    pub(crate) sequence: u64,
    /// When it was stored.
    pub(crate) time: ServerTime,
    /// What the worker said. `None`: this version cannot read it.
    pub(crate) renewal: Option<Renewal>,
}

/// The renewals of workers.
#[derive(Debug)]
pub struct Leases(Messages);

impl Leases {
    pub(super) async fn open(queue: &Queue) -> Result<Self, ReadError> {
        Messages::open(queue, LEASES, "$KV.ms_leases.lease.>".to_owned()).await.map(Self)
    }

    /// When the server opened the reader last, by its own clock.
    #[must_use]
    pub fn opened(&self) -> ServerTime {
        self.0.opened
    }

    /// Whether all renewals were read that were there when the reader looked last.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.0.is_caught_up()
    }

    /// The next renewal, and when the server stored it. Waits for it.
    ///
    /// Cancellation: no renewal is lost.
    ///
    /// # Errors
    /// When no server answers. The next call tries it again.
    pub async fn next(&mut self) -> Result<(ServerTime, Renewal), ReadError> {
        loop {
            let HeldLease { time, renewal, .. } = self.next_held().await?;
            if let Some(renewal) = renewal {
                return Ok((time, renewal));
            }
        }
    }

    /// As [`next`](Self::next), also with one that this version cannot read.
    pub(crate) async fn next_held(&mut self) -> Result<HeldLease, ReadError> {
        let Read { message, sequence, time } = self.0.next().await?;
        let subject = message.subject.as_str();
        let name = subject.strip_prefix(LEASE_HEAD).unwrap_or_default().to_owned();
        let renewal = stored_renewal(subject, &message.payload);
        Ok(HeldLease { name, sequence, time, renewal })
    }
}

/// The renewal in a message, if it is one. A worker speaks for itself only.
pub(crate) fn stored_renewal(subject: &str, json: &[u8]) -> Option<Renewal> {
    let renewal: Renewal = serde_json::from_slice(json).ok()?;
    (subject == format!("{LEASE_HEAD}{}", renewal.worker)).then_some(renewal)
}

/// The limits of tenants.
#[derive(Debug)]
pub struct Limits(Messages);

impl Limits {
    pub(super) async fn open(queue: &Queue) -> Result<Self, ReadError> {
        Messages::open(queue, TENANTS, "$KV.ms_tenants.tenant.>".to_owned()).await.map(Self)
    }

    /// Whether all limits were read that were there when the reader looked last.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.0.is_caught_up()
    }

    /// The next limits of a tenant. Waits for them.
    ///
    /// Cancellation: no limits are lost.
    ///
    /// # Errors
    /// When no server answers. The next call tries it again.
    pub async fn next(&mut self) -> Result<(Tenant, TenantLimits), ReadError> {
        loop {
            let Read { message, .. } = self.0.next().await?;
            if let Some(limits) = stored_limits(message.subject.as_str(), &message.payload) {
                return Ok(limits);
            }
        }
    }
}

/// The limits in a message, if it has some.
pub(crate) fn stored_limits(subject: &str, json: &[u8]) -> Option<(Tenant, TenantLimits)> {
    Some((tenant_of(subject)?, TenantLimits::read(json)?))
}

/// The marks of objects: each is there once its object is whole.
#[derive(Debug)]
pub(super) struct Marks(Messages);

impl Marks {
    pub(super) async fn open(queue: &Queue) -> Result<Self, ReadError> {
        Messages::open(queue, OBJECTS, "$O.ms_files.M.>".to_owned()).await.map(Self)
    }

    pub(super) const fn opened(&self) -> ServerTime {
        self.0.opened
    }

    pub(super) fn is_caught_up(&self) -> bool {
        self.0.is_caught_up()
    }

    /// Under which name the next object has its parts, if its mark can be read.
    pub(super) async fn next(&mut self) -> Result<Option<String>, ReadError> {
        let Read { message, .. } = self.0.next().await?;
        let info = serde_json::from_slice::<async_nats::jetstream::object_store::ObjectInfo>;
        Ok(info(&message.payload).ok().map(|info| info.nuid))
    }
}

/// The messages of one attempt's log.
#[derive(Debug)]
pub(crate) struct LogMessages(Messages);

impl LogMessages {
    pub(crate) async fn open(queue: &Queue, subject: &str) -> Result<Self, ReadError> {
        Messages::open(queue, LOGS, subject.to_owned()).await.map(Self)
    }

    /// The next message, and when the server stored it.
    pub(crate) async fn next(&mut self) -> Result<(Bytes, ServerTime), ReadError> {
        self.0.next().await.map(|read| (read.message.payload.clone(), read.time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_a_job_and_a_step() {
        let (id, number) = key("$KV.ms_jobs.job.a-1.7").unwrap();
        assert_eq!((id.as_str(), number), ("a-1", 7));
        for wrong in ["", "$KV.ms_jobs.job.a", "$KV.ms_jobs.job.a.b", "$KV.ms_jobs.job.-.1"] {
            assert!(key(wrong).is_none(), "{wrong}");
        }
        assert_eq!(key("$KV.ms_jobs.job.a.cancel").unwrap().1, CANCELLATION);
        assert!(key("$KV.ms_jobs.job.a.4294967295").is_none());
        assert!(key("$KV.ms_jobs.job.a.1.2").is_none());
        assert!(key("$KV.ms_jobs.job.a.-1").is_none());
    }
}
