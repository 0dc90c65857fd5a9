//! What QEMU's events mean for the machine.

use std::sync::{Arc, Mutex};

use metaservice_private::lock;
use tokio::sync::{Notify, watch};

use super::life::{MachineState, advance};
use crate::qmp::message::Event;

/// The evidence from events, for the verdict at the end.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// The reason of the first shutdown.
    pub(super) shutdown: Option<String>,
    pub(super) panicked: bool,
    /// A write to the disk found no room on the host.
    pub(super) no_room: bool,
}

/// What each event changes.
#[derive(Debug, Clone)]
pub(super) struct Observer {
    pub(super) observed: Arc<Mutex<Observed>>,
    pub(super) state: watch::Sender<MachineState>,
    /// The state of a migration, in QEMU's word.
    pub(super) migration: watch::Sender<String>,
    pub(super) no_room: Arc<Notify>,
}

impl Observer {
    pub(super) fn new() -> Self {
        Self {
            observed: Arc::default(),
            state: watch::Sender::new(MachineState::Running),
            migration: watch::Sender::default(),
            no_room: Arc::default(),
        }
    }

    pub(super) fn observe(&self, event: &Event) {
        match event.name.as_str() {
            "STOP" => advance(&self.state, MachineState::Paused),
            "RESUME" => advance(&self.state, MachineState::Running),
            "MIGRATION" => {
                self.migration.send_replace(event.text("status").unwrap_or_default().to_owned());
            }
            // QEMU stops the machine then, and would do so again after each resume.
            "BLOCK_IO_ERROR" if event.flag("nospace") => {
                lock(&self.observed).no_room = true;
                self.no_room.notify_one();
            }
            "GUEST_PANICKED" => lock(&self.observed).panicked = true,
            "SHUTDOWN" => {
                let reason = event.text("reason").unwrap_or("unknown").to_owned();
                // The first reason is the cause, later ones are its consequences.
                lock(&self.observed).shutdown.get_or_insert(reason);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_become_states_and_evidence() {
        let observer = Observer::new();
        let observe = |name: &str, data| observer.observe(&Event { name: name.into(), data });
        observe("STOP", json!(null));
        assert_eq!(*observer.state.borrow(), MachineState::Paused);
        observe("RESUME", json!(null));
        assert_eq!(*observer.state.borrow(), MachineState::Running);
        observe("SHUTDOWN", json!({"guest": true, "reason": "guest-reset"}));
        observe("SHUTDOWN", json!({"guest": false, "reason": "host-signal"}));
        assert_eq!(lock(&observer.observed).shutdown.as_deref(), Some("guest-reset"));
        observe("MIGRATION", json!({"status": "completed"}));
        assert_eq!(*observer.migration.borrow(), "completed");
        observe("BLOCK_IO_ERROR", json!({"nospace": false, "action": "report"}));
        assert!(!lock(&observer.observed).no_room);
        observe("BLOCK_IO_ERROR", json!({"nospace": true, "action": "stop"}));
        assert!(lock(&observer.observed).no_room);
        observe("GUEST_PANICKED", json!({"action": "poweroff"}));
        assert!(lock(&observer.observed).panicked);
    }
}
