//! What the handlers share.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Instant, SystemTime};

use metaservice_private::lock;
use metaservice_protocol::{ActionId, Exec};

use super::described::{DescribedCommands, Full};
use super::description::Description;
use crate::handle::service::MetaService;
use crate::job::id::new_id;

/// A job that is served.
#[derive(Clone)]
pub(crate) struct Served {
    pub(super) description: Description,
    pub(super) service: MetaService,
    pub(super) started: SystemTime,
    described: Arc<Mutex<DescribedCommands>>,
}

impl Served {
    pub(super) fn new(description: Description, service: MetaService) -> Self {
        let started = description.started.unwrap_or_else(SystemTime::now);
        Self { description, service, started, described: Arc::default() }
    }

    fn described(&self) -> MutexGuard<'_, DescribedCommands> {
        lock(&self.described)
    }

    /// Keeps a described command of `length` bytes. Returns its id.
    pub(super) fn describe(&self, exec: Exec, length: usize) -> Result<ActionId, Full> {
        let id = new_id();
        self.described().add(Instant::now(), id.clone(), exec, length)?;
        Ok(id)
    }

    /// The described command with this id, if it still waits.
    pub(super) fn take(&self, id: &str) -> Option<Exec> {
        let id = ActionId::parse(id).ok()?;
        self.described().take(Instant::now(), &id)
    }
}
