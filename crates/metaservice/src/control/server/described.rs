//! Commands that a client has described and not started yet.
//!
//! A websocket begins with a GET, which has no body. A request's target is not the place for a
//! command: its length is limited, and logs show it. So a client describes the command in the body
//! of another request, and starts it with the id that it gets.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use metaservice_protocol::{ActionId, Exec};

/// How long a command waits to be started.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(30);

/// How many commands may wait.
const MAX: usize = 64;

/// How many bytes of JSON may wait.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Too many commands wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many commands wait to be started")]
pub(super) struct Full;

/// The commands that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct DescribedCommands {
    commands: VecDeque<Command>,
    bytes: usize,
}

#[derive(Debug)]
struct Command {
    id: ActionId,
    exec: Exec,
    bytes: usize,
    until: Instant,
}

impl DescribedCommands {
    /// Keeps a command of `bytes` bytes under a new id.
    pub(super) fn add(
        &mut self,
        now: Instant,
        id: ActionId,
        exec: Exec,
        bytes: usize,
    ) -> Result<(), Full> {
        self.expire(now);
        let sum = self.bytes.saturating_add(bytes);
        if self.commands.len() >= MAX || sum > MAX_BYTES {
            return Err(Full);
        }
        self.bytes = sum;
        self.commands.push_back(Command { id, exec, bytes, until: now + KEPT_FOR });
        Ok(())
    }

    /// Removes and returns the command with this id.
    pub(super) fn take(&mut self, now: Instant, id: &ActionId) -> Option<Exec> {
        self.expire(now);
        let place = self.commands.iter().position(|command| command.id == *id)?;
        let command = self.commands.remove(place)?;
        self.bytes -= command.bytes;
        Some(command.exec)
    }

    fn expire(&mut self, now: Instant) {
        while let Some(command) = self.commands.pop_front_if(|command| command.until <= now) {
            self.bytes -= command.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ActionId {
        ActionId::parse(&format!("id-{number}")).unwrap()
    }

    #[test]
    fn a_command_is_taken_once_and_in_time() {
        let now = Instant::now();
        let mut described = DescribedCommands::default();
        let exec = Exec { command: vec!["a".into()], ..Exec::default() };
        described.add(now, id(1), exec.clone(), 10).unwrap();
        described.add(now, id(2), Exec::default(), 10).unwrap();
        assert_eq!(described.take(now, &id(3)), None);
        assert_eq!(described.take(now, &id(1)), Some(exec));
        assert_eq!(described.take(now, &id(1)), None);
        assert_eq!(described.take(now + KEPT_FOR, &id(2)), None);
        assert_eq!((described.commands.len(), described.bytes), (0, 0));
    }

    #[test]
    fn the_waiting_commands_have_limits_of_number_and_bytes() {
        let now = Instant::now();
        let mut described = DescribedCommands::default();
        for number in 0..MAX {
            described.add(now, id(number), Exec::default(), 1).unwrap();
        }
        assert_eq!(described.add(now, id(MAX), Exec::default(), 1), Err(Full));
        described.add(now + KEPT_FOR, id(MAX), Exec::default(), MAX_BYTES).unwrap();
        assert_eq!(described.add(now + KEPT_FOR, id(0), Exec::default(), 1), Err(Full));
    }
}
