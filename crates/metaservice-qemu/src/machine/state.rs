//! The state of a machine's processors and devices, as bytes.
//!
//! Owns the exchange with QEMU that saves and loads it (a migration, in QEMU's words). The memory
//! is not part of it: that is a file which QEMU maps, shared while the snapshot is made, and
//! private in a machine that was restored from it. The disk is not part of it either: what the
//! machine wrote is in an image over that of the disk. So the state is small and is loaded in
//! milliseconds. Many machines can be restored from one snapshot at once; none of them can change
//! it.

use std::future::Future;
use std::os::fd::AsFd;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::exit::Exit;
use crate::qmp::{Monitor, QmpError};

/// The largest state: 256 MiB. The state of a small machine has half a megabyte.
pub(crate) const MAX_STATE: u64 = 256 * 1024 * 1024;

/// How long a transfer may take. It takes about 10 ms.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The name of the descriptor for the transfer.
const CHANNEL: &str = "state";

/// A state that could not be saved or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// QEMU rejects it, for example because of a device whose state it cannot save.
    #[error("QEMU cannot do it: {0}")]
    Refused(String),
    /// The bytes could not be transferred.
    #[error("the bytes of the state could not be transferred")]
    Io(#[from] std::io::Error),
    /// The transfer took too long.
    #[error("QEMU did not finish within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// The state is larger than 256 MiB.
    #[error("the state is larger than {MAX_STATE} bytes")]
    TooLarge,
}

impl From<QmpError> for StateError {
    fn from(error: QmpError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// The transfer of the state of one machine.
pub(super) struct Transfer<'a, E> {
    pub(super) monitor: &'a Monitor,
    /// The state of the migration, in QEMU's word.
    pub(super) status: watch::Receiver<String>,
    /// The end of the machine.
    pub(super) ended: E,
}

impl<E: Future<Output = Exit>> Transfer<'_, E> {
    /// Stops the machine, and returns its state.
    pub(super) async fn save(self) -> Result<Vec<u8>, StateError> {
        self.prepare().await?;
        self.monitor.execute("stop").await?;
        let host = self.open().await?;
        let saving = async {
            let mut state = Vec::new();
            let reading = async {
                host.take(MAX_STATE + 1).read_to_end(&mut state).await?;
                Ok::<_, StateError>(())
            };
            let requesting = async {
                let uri = json!({ "uri": format!("fd:{CHANNEL}") });
                self.monitor.execute_with("migrate", uri).await?;
                self.completed().await
            };
            tokio::try_join!(reading, requesting)?;
            if state.len() as u64 > MAX_STATE { Err(StateError::TooLarge) } else { Ok(state) }
        };
        timeout(TIMEOUT, saving).await.unwrap_or(Err(StateError::TimedOut))
    }

    /// Loads a state into a machine that waits for it, and lets the machine run.
    pub(super) async fn load(self, state: Vec<u8>) -> Result<(), StateError> {
        let monitor = self.monitor;
        self.prepare().await?;
        let mut host = self.open().await?;
        let uri = json!({ "uri": format!("fd:{CHANNEL}") });
        monitor.execute_with("migrate-incoming", uri).await?;
        let loading = async {
            let writing = async {
                // A QEMU that rejects the beginning closes the socket. `completed` has the error.
                let _ = host.write_all(&state).await;
                let _ = host.shutdown().await;
                Ok(())
            };
            tokio::try_join!(writing, self.completed())
        };
        timeout(TIMEOUT, loading).await.unwrap_or(Err(StateError::TimedOut))?;
        monitor.execute("cont").await?;
        Ok(())
    }

    async fn prepare(&self) -> Result<(), StateError> {
        let on = |name| json!({ "capability": name, "state": true });
        let capabilities = json!({ "capabilities": [on("x-ignore-shared"), on("events")] });
        self.monitor.execute_with("migrate-set-capabilities", capabilities).await?;
        Ok(())
    }

    /// Opens the channel, and returns the host's end.
    async fn open(&self) -> Result<UnixStream, StateError> {
        let (host, qemu) = UnixStream::pair()?;
        self.monitor.give(CHANNEL, qemu.as_fd()).await?;
        Ok(host)
    }

    /// Waits for the end of the migration.
    async fn completed(self) -> Result<(), StateError> {
        let Self { monitor, mut status, ended } = self;
        let finished = status.wait_for(|status| status == "completed" || status == "failed");
        let status = tokio::select! {
            status = finished => status.map(|status| status.clone()).unwrap_or_default(),
            exit = ended => return Err(StateError::Refused(exit.cause.to_string())),
        };
        if status == "completed" {
            return Ok(());
        }
        let answer = monitor.execute("query-migrate").await?;
        let why = answer.get("error-desc").and_then(serde_json::Value::as_str);
        Err(StateError::Refused(why.unwrap_or("no reason given").to_owned()))
    }
}
