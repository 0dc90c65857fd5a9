//! Commands that a client has described and not started yet.
//!
//! A websocket begins with a GET, which has no body, and a request's target is no place for a
//! command: it is bounded, and it is what logs show. So a client describes the command in the body
//! of a request of its own, and starts it by the id that it gets.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use metaservice_protocol::{ActionId, Exec};

/// How long a command waits to be started.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(30);

/// How many wait at once.
const MOST: usize = 64;

/// How many bytes of JSON wait at once.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Too many commands wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many commands wait to be started")]
pub(super) struct Full;

/// The commands that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Described {
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

impl Described {
    /// Keeps a command of so many bytes under a new id.
    pub(super) fn add(
        &mut self,
        now: Instant,
        id: ActionId,
        exec: Exec,
        bytes: usize,
    ) -> Result<(), Full> {
        self.expire(now);
        let sum = self.bytes.saturating_add(bytes);
        if self.commands.len() >= MOST || sum > MOST_BYTES {
            return Err(Full);
        }
        self.bytes = sum;
        self.commands.push_back(Command { id, exec, bytes, until: now + KEPT_FOR });
        Ok(())
    }

    /// The command of this id, which can be started once.
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
        let mut described = Described::default();
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
    fn what_waits_is_bounded_in_number_and_bytes() {
        let now = Instant::now();
        let mut described = Described::default();
        for number in 0..MOST {
            described.add(now, id(number), Exec::default(), 1).unwrap();
        }
        assert_eq!(described.add(now, id(MOST), Exec::default(), 1), Err(Full));
        described.add(now + KEPT_FOR, id(MOST), Exec::default(), MOST_BYTES).unwrap();
        assert_eq!(described.add(now + KEPT_FOR, id(0), Exec::default(), 1), Err(Full));
    }
}
