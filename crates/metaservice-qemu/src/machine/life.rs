//! The state of a machine's life.

use tokio::sync::watch;

/// Where a machine is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MachineState {
    /// Its processors run.
    Running,
    /// Its processors are stopped.
    Paused,
    /// It was asked to end.
    PoweringDown,
    /// It has ended.
    Exited,
}

/// Changes the state. A machine that powers down or has exited does not run again.
pub(super) fn advance(state: &watch::Sender<MachineState>, next: MachineState) {
    state.send_if_modified(|state| {
        let is_open = matches!(*state, MachineState::Running | MachineState::Paused);
        let change = is_open && *state != next;
        if change {
            *state = next;
        }
        change
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_powers_down_does_not_run_again() {
        let state = watch::Sender::new(MachineState::Running);
        advance(&state, MachineState::PoweringDown);
        advance(&state, MachineState::Running);
        assert_eq!(*state.borrow(), MachineState::PoweringDown);
        state.send_replace(MachineState::Exited);
        advance(&state, MachineState::PoweringDown);
        assert_eq!(*state.borrow(), MachineState::Exited);
    }
}
