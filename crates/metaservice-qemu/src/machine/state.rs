//! A machine's state as bytes, and a machine from them.
//!
//! Owns the conversation by which QEMU saves and loads the state of processors and devices. The
//! memory is no part of it: that is a file which QEMU maps, shared while it is recorded and
//! private when a machine goes on from it. Neither is the disk: what a machine has written to it
//! is an image over its own, under another one when a machine goes on. So a state is small, is loaded in milliseconds, and
//! any number of machines go on from one file at once, none of which can change it.

use std::os::fd::AsFd;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::machine::Machine;
use crate::qmp::QmpError;

/// The largest state: 256 MiB. That of a small machine has half a megabyte.
pub(crate) const MAX_STATE: u64 = 256 * 1024 * 1024;

/// How long saving or loading may take. It takes some 10 ms.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The name of the descriptor through which a state goes.
const CHANNEL: &str = "state";

/// A state that could not be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// QEMU refuses, as with a device whose state it cannot save.
    #[error("QEMU cannot do it: {0}")]
    Refused(String),
    /// The bytes did not get through.
    #[error("the state's bytes did not get through")]
    Io(#[from] std::io::Error),
    /// It takes too long.
    #[error("QEMU did not finish within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// The state is larger than any.
    #[error("the state is larger than {MAX_STATE} bytes")]
    TooLarge,
}

impl From<QmpError> for StateError {
    fn from(error: QmpError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl Machine {
    /// Saves the state of processors and devices of a machine that is
    /// [written to a new snapshot](crate::MachineSpec::snapshot_to). It stands still from then on, and is of no
    /// use but to be killed.
    ///
    /// # Errors
    /// [`StateError`]; a device may not allow it (a shared folder does not).
    pub async fn save_state(&self) -> Result<Vec<u8>, StateError> {
        self.prepare_migration().await?;
        self.monitor.execute("stop").await?;
        let (ours, theirs) = UnixStream::pair()?;
        self.monitor.give(CHANNEL, theirs.as_fd()).await?;
        drop(theirs);
        let saving = async {
            let mut state = Vec::new();
            let reading = async {
                ours.take(MAX_STATE + 1).read_to_end(&mut state).await?;
                Ok::<_, StateError>(())
            };
            let asking = async {
                let uri = json!({ "uri": format!("fd:{CHANNEL}") });
                self.monitor.execute_with("migrate", uri).await?;
                self.migrated().await
            };
            tokio::try_join!(reading, asking)?;
            if state.len() as u64 > MAX_STATE { Err(StateError::TooLarge) } else { Ok(state) }
        };
        timeout(TIMEOUT, saving).await.unwrap_or(Err(StateError::TimedOut))
    }

    /// Loads a state into a machine that waits for it, and lets it run.
    pub(crate) async fn load_state(&self, state: Vec<u8>) -> Result<(), StateError> {
        self.prepare_migration().await?;
        let (mut ours, theirs) = UnixStream::pair()?;
        self.monitor.give(CHANNEL, theirs.as_fd()).await?;
        drop(theirs);
        let uri = json!({ "uri": format!("fd:{CHANNEL}") });
        self.monitor.execute_with("migrate-incoming", uri).await?;
        let loading = async {
            let writing = async {
                // A QEMU that does not like the beginning closes: it says so itself, below.
                let _ = ours.write_all(&state).await;
                let _ = ours.shutdown().await;
                Ok(())
            };
            tokio::try_join!(writing, self.migrated())
        };
        timeout(TIMEOUT, loading).await.unwrap_or(Err(StateError::TimedOut))?;
        self.monitor.execute("cont").await?;
        Ok(())
    }

    async fn prepare_migration(&self) -> Result<(), StateError> {
        let on = |name| json!({ "capability": name, "state": true });
        let capabilities = json!({ "capabilities": [on("x-ignore-shared"), on("events")] });
        self.monitor.execute_with("migrate-set-capabilities", capabilities).await?;
        Ok(())
    }

    /// Waits for the end of what was begun.
    async fn migrated(&self) -> Result<(), StateError> {
        let mut migration = self.migration.subscribe();
        let ended = migration.wait_for(|status| status == "completed" || status == "failed");
        let status = tokio::select! {
            status = ended => status.map(|status| status.clone()).unwrap_or_default(),
            exit = self.wait() => return Err(StateError::Refused(exit.cause.to_string())),
        };
        if status == "completed" {
            return Ok(());
        }
        let why = self.monitor.execute("query-migrate").await?;
        let why = why.get("error-desc").and_then(serde_json::Value::as_str);
        Err(StateError::Refused(why.unwrap_or("it says no reason").to_owned()))
    }
}
