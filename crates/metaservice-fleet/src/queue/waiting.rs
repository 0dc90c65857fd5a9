//! Why a job waits, as the queue shows it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::connection::Queue;
use super::error::ReadError;
use super::watch::{Leases, Limits, Steps, StoredStep};
use crate::moment::at;
use crate::state::{JobState, ServerTime};
use crate::tenants::{TenantLimits, TenantUse};
use crate::view::View;
use crate::why_waiting::{Crew, Reason, next_change, why};

/// The workers of a queue, the tenant of a job, and what changes of them.
///
/// It reads the renewals of all workers. Only for a tenant with a limit of running jobs, it also
/// reads the steps of all jobs.
#[derive(Debug)]
pub struct Waiting {
    queue: Queue,
    leases: Leases,
    limits: Limits,
    crew: Crew,
    /// The server's time at a moment of this process.
    clock: (ServerTime, Instant),
    tenants: View,
    steps: Option<Steps>,
    told: Option<Reason>,
}

impl Queue {
    /// The workers as they are now, and the server's time. If no worker has renewed a lease since the
    /// server was restarted, it is the time of this host.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn crew(&self) -> Result<(Crew, ServerTime), ReadError> {
        let mut leases = match self.leases().await {
            Err(ReadError::NoLeases) => return Ok((Crew::default(), own_time())),
            leases => leases?,
        };
        let crew = read(&mut leases).await?;
        Ok((crew, leases.opened()))
    }

    /// What tells why a job waits.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn waiting(&self) -> Result<Waiting, ReadError> {
        let mut leases = self.leases().await?;
        let clock = (leases.opened(), Instant::now());
        let crew = read(&mut leases).await?;
        let (mut limits, mut tenants) = (self.limits().await?, View::default());
        while !limits.is_caught_up() {
            let (tenant, limits) = limits.next().await?;
            tenants.limit(tenant, limits);
        }
        let (queue, steps, told) = (self.clone(), None, None);
        Ok(Waiting { queue, leases, limits, crew, clock, tenants, steps, told })
    }
}

fn own_time() -> ServerTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ServerTime::try_from(since.as_millis()).unwrap_or_default()
}

async fn read(leases: &mut Leases) -> Result<Crew, ReadError> {
    let mut crew = Crew::default();
    while !leases.is_caught_up() {
        let (stored, renewal) = leases.next().await?;
        crew.renewed(stored, renewal);
    }
    Ok(crew)
}

impl Waiting {
    /// Why this job waits, once that is another reason than the one told before. Waits for it.
    ///
    /// Cancellation: no reason is lost.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn next(&mut self, job: &JobState) -> Result<Reason, ReadError> {
        loop {
            self.read_limited(job).await?;
            let time = self.time();
            match why(job, &self.crew, self.tenant(job), time) {
                Some(reason) if self.told.as_ref() != Some(&reason) => {
                    self.told = Some(reason.clone());
                    return Ok(reason);
                }
                _ => self.change(job, time).await?,
            }
        }
    }

    /// Waits until something changes of what decides.
    async fn change(&mut self, job: &JobState, time: ServerTime) -> Result<(), ReadError> {
        let after = next_change(job, &self.crew, time).map(|moment| moment.saturating_sub(time));
        let moment = after.map(|after| Instant::now() + Duration::from_millis(after));
        tokio::select! {
            renewed = self.leases.next() => {
                let (stored, renewal) = renewed?;
                self.crew.renewed(stored, renewal);
            }
            limits = self.limits.next() => {
                let (tenant, limits) = limits?;
                self.tenants.limit(tenant, limits);
            }
            step = next_step(&mut self.steps) => {
                let StoredStep { id, at, change } = step?;
                self.tenants.apply(self.clock.1.elapsed(), &id, at, change);
            }
            () = at(moment) => {}
        }
        Ok(())
    }

    fn tenant(&self, job: &JobState) -> TenantUse {
        self.tenants.tenants().remove(&job.request.tenant).unwrap_or_default()
    }

    /// Counts the running jobs of the tenant, if their number has a limit.
    async fn read_limited(&mut self, job: &JobState) -> Result<(), ReadError> {
        let TenantLimits { running, .. } = self.tenant(job).limits;
        if running.is_none() {
            return Ok(());
        }
        if self.steps.is_none() {
            self.steps = Some(self.queue.steps().await?);
        }
        while let Some(steps) = self.steps.as_mut().filter(|steps| !steps.is_caught_up()) {
            let StoredStep { id, at, change } = steps.next().await?;
            self.tenants.apply(self.clock.1.elapsed(), &id, at, change);
        }
        Ok(())
    }

    fn time(&self) -> ServerTime {
        let (stored, since) = self.clock;
        let elapsed = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        stored.saturating_add(elapsed)
    }
}

async fn next_step(steps: &mut Option<Steps>) -> Result<StoredStep, ReadError> {
    match steps {
        Some(steps) => steps.next().await,
        None => std::future::pending().await,
    }
}
