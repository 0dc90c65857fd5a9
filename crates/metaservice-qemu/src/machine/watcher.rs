//! The task that waits for the end of a machine.
//!
//! Owns what is needed to judge the end, and nothing that would keep a dropped machine alive.

use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metaservice_private::lock;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::console::Console;
use super::events::Observer;
use super::exit::{Evidence, Exit};
use super::out_of_memory::Kills;
use super::process::{Killer, Stderr};

/// How long the ends of the console and the monitor may take once QEMU has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of console lines that are searched for a panic.
const PANIC_LINES: usize = 400;

pub(super) struct Watcher<E> {
    pub(super) ended: E,
    pub(super) stderr: Stderr,
    pub(super) console: Console,
    pub(super) monitor_end: JoinHandle<()>,
    pub(super) observer: Observer,
    pub(super) killed: Arc<AtomicBool>,
    pub(super) killer: Killer,
    /// How often the host had killed for memory when the machine was started.
    pub(super) kills: Kills,
}

impl<E: Future<Output = Option<ExitStatus>>> Watcher<E> {
    /// Waits for the end. A machine whose disk found no room on the host is killed.
    pub(super) async fn wait(self) -> Option<Exit> {
        let mut ended = pin!(self.ended);
        let status = tokio::select! {
            status = &mut ended => status,
            () = self.observer.no_room.notified() => {
                self.killer.kill();
                ended.await
            }
        }?;
        // QEMU's last output may still be in the sockets.
        let drained = async {
            self.console.ended().await;
            let _ = self.monitor_end.await;
        };
        if timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            tracing::warn!("QEMU has ended, but its console or monitor is still open");
        }
        let observed = std::mem::take(&mut *lock(&self.observer.observed));
        let evidence = Evidence {
            shutdown: observed.shutdown,
            panicked: observed.panicked,
            no_room: observed.no_room,
            killed: self.killed.load(Ordering::Relaxed),
            console: self.console.tail(PANIC_LINES),
            stderr: self.stderr.shown(),
            signal: status.signal(),
            out_of_memory: Kills::now().since(self.kills),
        };
        Some(Exit { cause: evidence.verdict(), status })
    }
}
