//! What the serving process says about a job.

use std::fmt;
use std::sync::{Arc, Mutex};

use metaservice_private::lock;

/// What the serving process says about the job.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Description {
    /// The job's name.
    pub name: String,
    /// The command to show, if the guest runs another one around it. Then the names of its variables
    /// are not shown.
    pub command: Option<Vec<String>>,
    /// About its machine.
    pub machine: MachineDescription,
}

/// The description of a job's machine: any JSON, for people; `null` for nothing. Clones share it, and
/// it may change while it is served.
#[derive(Clone, Default)]
pub struct MachineDescription(Arc<Mutex<Option<Describe>>>);

type Describe = Box<dyn Fn() -> serde_json::Value + Send>;

impl MachineDescription {
    /// Replaces the description.
    pub fn set(&self, description: serde_json::Value) {
        self.set_with(move || description.clone());
    }

    /// Replaces the description by one that is made for each request. `describe` must not wait.
    pub fn set_with(&self, describe: impl Fn() -> serde_json::Value + Send + 'static) {
        *lock(&self.0) = Some(Box::new(describe));
    }

    pub(super) fn get(&self) -> serde_json::Value {
        lock(&self.0).as_ref().map_or(serde_json::Value::Null, |describe| describe())
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
