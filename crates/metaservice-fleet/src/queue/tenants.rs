//! The limits of tenants, in a bucket of their own.

use async_nats::jetstream::stream::LastRawMessageErrorKind;

use super::connection::{Queue, TENANTS};
use super::error::{LimitError, ReadError, RoomError};
use super::keys::tenant_subject;
use super::watch::Limits;
use crate::name::{JobId, Tenant};
use crate::tenants::TenantLimits;

impl Queue {
    /// The limits of each tenant, and those to come.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn limits(&self) -> Result<Limits, ReadError> {
        Limits::open(self).await
    }

    /// The limits of a tenant as they are now. None is set where none can be read.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn limits_of(&self, tenant: &Tenant) -> Result<TenantLimits, ReadError> {
        match self.last(TENANTS, &tenant_subject(tenant)).await? {
            Ok(message) => Ok(TenantLimits::read(&message.payload).unwrap_or_default()),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                Ok(TenantLimits::default())
            }
            Err(error) => Err(ReadError::Server(error.into())),
        }
    }

    /// Sets the limits of a tenant, instead of those before. Running jobs continue.
    ///
    /// Cancellation: they may be set or not.
    ///
    /// # Errors
    /// When the user may not set them, or no server confirms it. They may be set then.
    pub async fn limit(&self, tenant: &Tenant, limits: TenantLimits) -> Result<(), LimitError> {
        let json = serde_json::to_vec(&limits).map_err(LimitError::Form)?;
        let subject = tenant_subject(tenant);
        let sending = async { self.context().publish(subject.clone(), json.into()).await?.await };
        self.denials().watch(&subject, sending).await?.map(drop).map_err(LimitError::Server)
    }

    /// Checks whether the tenant may submit these jobs. Those that the queue knows already do not
    /// count. Clients that submit at the same time can exceed the limit together.
    ///
    /// # Errors
    /// When more jobs would wait than may, or no server answers.
    pub async fn check_room(&self, tenant: &Tenant, ids: &[&JobId]) -> Result<(), RoomError> {
        let Some(limit) = self.limits_of(tenant).await?.waiting else { return Ok(()) };
        let view = self.view().await?;
        let new = ids.iter().filter(|id| view.job(id).is_none()).count();
        let waiting = view.tenants().get(tenant).map_or(0, |tenant| tenant.waiting);
        let room = usize::try_from(limit.saturating_sub(waiting)).unwrap_or(usize::MAX);
        match new <= room {
            true => Ok(()),
            false => Err(RoomError::Full { tenant: tenant.clone(), limit, waiting, new }),
        }
    }
}
