//! One job: its parts, shared by the handle and the guest's end-points.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use metaservice_protocol::{AgentInfo, Capability, Execute, Reason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::job::actions::Actions;
use crate::job::contact::Contacts;
use crate::job::disk::DiskWork;
use crate::job::input::Input;
use crate::job::limits::{Limits, Storage};
use crate::job::log::{Holes, Log};
use crate::job::need::Need;
use crate::job::persistence::{Persisted, Store};
use crate::job::result::{Conflict, JobResult, ResultSlot};
use crate::job::session::Session;

/// The state of one job.
pub(crate) struct Job {
    pub(crate) execute: Execute,
    pub(crate) log: Log,
    pub(crate) holes: Arc<Holes>,
    pub(crate) result: ResultSlot,
    pub(crate) fetched: watch::Sender<Option<SystemTime>>,
    /// What the agent announced last.
    pub(crate) agent: watch::Sender<Option<AgentInfo>>,
    /// What the command goes without, because its agent cannot do it.
    pub(crate) without: watch::Sender<Vec<Need>>,
    pub(crate) actions: Actions,
    /// The stdin of the command.
    pub(crate) input: Arc<Input>,
    /// The task that delivers the stdin. It ends with the job.
    pub(crate) feeder: Mutex<Option<AbortOnDropHandle<()>>>,
    /// Becomes true when the service is shut down.
    pub(crate) terminated: watch::Sender<bool>,
    pub(crate) temporary_directory: PathBuf,
    pub(crate) disk_work: DiskWork,
    pub(crate) session: Session,
    pub(crate) contact: Contacts,
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) limits: Limits,
    pub(crate) storage: Arc<Storage>,
    /// One permit for each stream that may be open.
    pub(crate) streams: Arc<Semaphore>,
}

impl Job {
    /// When the guest first fetched its command; a time before this process started if the job
    /// was restored from its state directory.
    pub(crate) fn fetched_at(&self) -> Option<SystemTime> {
        *self.fetched.borrow()
    }

    pub(crate) fn is_fetched(&self) -> bool {
        self.fetched_at().is_some()
    }

    /// Records that the guest fetches its command now. The first time counts.
    pub(crate) async fn fetch(&self, now: SystemTime) -> io::Result<()> {
        if self.is_fetched() {
            return Ok(());
        }
        self.persist(move |state| state.fetch(now)).await?;
        self.fetched.send_if_modified(|fetched| {
            let first = fetched.is_none();
            fetched.get_or_insert(now);
            first
        });
        Ok(())
    }

    /// Whether the job has ended because its agent cannot run its command.
    pub(crate) fn is_unsupported(&self) -> bool {
        let ending = self.result.get().and_then(|result| result.ending);
        ending.is_some_and(|ending| ending.reason == Reason::Unsupported)
    }

    /// Records what the command goes without.
    pub(crate) fn go_without(&self, needs: Vec<Need>) {
        self.without.send_if_modified(|without| {
            let changed = *without != needs;
            *without = needs;
            changed
        });
    }

    /// Takes a result. The first one counts. It is on the disk before anybody sees it.
    pub(crate) async fn resolve(&self, result: JobResult) -> io::Result<Result<(), Conflict>> {
        let result = self.result.explained(result);
        if let Some(store) = &self.store {
            let persisted = result.clone();
            store.persist(move |state| state.resolve(persisted)).await?;
            // Of two results at once, the disk has the first.
            let first = store.persisted().result();
            if let Some(first) = first {
                // The same as `result`, or in conflict with it: the check below tells.
                let _ = self.result.resolve(first);
            }
        }
        Ok(self.result.resolve(result))
    }

    /// Frees the session for the next agent. Returns `false`, and changes nothing, if the command
    /// was fetched or the job has a state directory: a persisted session is not given away.
    pub(crate) fn release(&self) -> bool {
        let free = !self.is_fetched() && self.store.is_none();
        if free {
            self.session.release();
        }
        free
    }

    /// Changes the persisted state. Without a state directory it does nothing.
    pub(crate) async fn persist(
        &self,
        change: impl FnOnce(&mut Persisted) + Send + 'static,
    ) -> io::Result<()> {
        match &self.store {
            Some(store) => store.persist(change).await,
            None => Ok(()),
        }
    }

    /// Whether the agent has announced this capability.
    pub(crate) fn can(&self, capability: Capability) -> bool {
        self.agent.borrow().as_ref().is_some_and(|agent| agent.capabilities.has(capability))
    }

    /// A permit for one more stream, or `None` if there are as many as the limit allows.
    pub(crate) fn stream_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }
}
