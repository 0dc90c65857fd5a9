//! What the serving process says about a job.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use metaservice_private::lock;
use tokio::sync::watch;

use crate::control::network::NetworkHandle;

/// What the serving process says about the job.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Description {
    /// The job's name.
    pub name: String,
    /// The command to show, if the guest runs another one around it. Then the names of its
    /// variables are not shown.
    pub command: Option<Vec<String>>,
    /// When the job was started. `None`: when it began to be served.
    pub started: Option<SystemTime>,
    /// About its machine.
    pub machine: MachineDescription,
    /// How its machine is ended at once. `None`: this cannot be done.
    pub force: Option<Force>,
    /// The network of its guest. `None`: there is none.
    pub network: Option<NetworkHandle>,
    /// Whether the machine of a failed command is kept for clients: then its description has a
    /// member `keptUntilMs` from that time on. Who waits for the end is answered then.
    pub keeps_on_failure: bool,
}

/// Ends a machine at once, without its guest. Clones do the same.
#[derive(Clone)]
pub struct Force(Arc<dyn Fn(ForceReason) -> Ended + Send + Sync>);

type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why a machine is ended at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForceReason {
    /// A client has asked for it.
    Asked,
    /// A client has asked to kill the command, and the guest has not taken the order within
    /// [`KILL_ORDER_TIMEOUT`](crate::control::KILL_ORDER_TIMEOUT).
    KillNotTaken,
}

impl Force {
    /// `end` begins to end the machine when it is called. Its future completes when the machine has
    /// ended; dropping it changes nothing.
    pub fn new<F>(end: impl Fn(ForceReason) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self(Arc::new(move |reason| Box::pin(end(reason))))
    }

    pub(super) async fn end(&self, reason: ForceReason) {
        (self.0)(reason).await;
    }
}

impl fmt::Debug for Force {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Force").finish_non_exhaustive()
    }
}

/// The description of a job's machine: any JSON, for people; `null` for nothing. Clones share it,
/// and it may change while it is served.
#[derive(Clone, Default)]
pub struct MachineDescription(Arc<Machine>);

#[derive(Default)]
struct Machine {
    describe: Mutex<Option<Describe>>,
    changed: watch::Sender<()>,
}

type Describe = Box<dyn Fn() -> serde_json::Value + Send>;

impl MachineDescription {
    /// Replaces the description.
    pub fn set(&self, description: serde_json::Value) {
        self.set_with(move || description.clone());
    }

    /// Replaces the description by one that is made for each request. `describe` must not wait.
    pub fn set_with(&self, describe: impl Fn() -> serde_json::Value + Send + 'static) {
        *lock(&self.0.describe) = Some(Box::new(describe));
        self.0.changed.send_replace(());
    }

    pub(super) fn get(&self) -> serde_json::Value {
        lock(&self.0.describe).as_ref().map_or(serde_json::Value::Null, |describe| describe())
    }

    /// Whether the machine of a failed command is kept for clients.
    pub(super) fn is_kept(&self) -> bool {
        !self.get()["keptUntilMs"].is_null()
    }

    /// Waits until the machine of a failed command is kept.
    pub(super) async fn kept(&self) {
        let mut changes = self.0.changed.subscribe();
        while !self.is_kept() {
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }
}

impl fmt::Debug for MachineDescription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("MachineDescription").field(&self.get()).finish()
    }
}

impl From<&str> for Description {
    fn from(name: &str) -> Self {
        Self::from(name.to_owned())
    }
}

impl From<String> for Description {
    fn from(name: String) -> Self {
        Self { name, ..Self::default() }
    }
}
