//! How many jobs of each tenant run, and how many may.

use std::collections::HashMap;

use crate::name::Tenant;
use crate::tenants::TenantLimits;

#[derive(Debug, Default)]
pub(super) struct Tenants {
    pub(super) running: HashMap<Tenant, u32>,
    pub(super) limits: HashMap<Tenant, TenantLimits>,
}

impl Tenants {
    pub(super) fn begin(&mut self, tenant: &Tenant) {
        *self.running.entry(tenant.clone()).or_default() += 1;
    }

    pub(super) fn end(&mut self, tenant: &Tenant) {
        if let Some(count) = self.running.get_mut(tenant) {
            *count -= 1;
            if *count == 0 {
                self.running.remove(tenant);
            }
        }
    }

    pub(super) fn running(&self, tenant: &Tenant) -> u32 {
        self.running.get(tenant).copied().unwrap_or_default()
    }

    pub(super) fn limits(&self, tenant: &Tenant) -> TenantLimits {
        self.limits.get(tenant).copied().unwrap_or_default()
    }

    /// Takes new limits of a tenant.
    pub(super) fn limit(&mut self, tenant: Tenant, limits: TenantLimits) {
        match limits.is_empty() {
            true => self.limits.remove(&tenant),
            false => self.limits.insert(tenant, limits),
        };
    }

    /// Whether so many jobs of the tenant may run.
    pub(super) fn allow(&self, tenant: &Tenant, running: u32) -> bool {
        self.limits(tenant).running.is_none_or(|limit| running <= limit)
    }
}
