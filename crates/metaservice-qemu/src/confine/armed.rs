//! A command that confines itself when it starts.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;

use ::landlock::RulesetCreated;
use rustix::thread::CapabilitySet;
use seccompiler::BpfProgram;

use super::enter::{self, Entry};
use super::error::ConfineError;
use super::handshake::{self, Seen};
use super::steps::Step;

/// Directories to mount the new root over. Any existing one is fine.
const BASES: [&str; 4] = ["/tmp", "/usr", "/dev", "/"];

/// Both ends of the socket between parent and child.
#[derive(Debug)]
pub(super) struct Ends {
    parent: UnixStream,
    child: UnixStream,
}

/// A command that confines itself between fork and exec.
#[derive(Debug)]
pub(crate) struct Armed {
    ends: Option<Ends>,
    rules: Option<RulesetCreated>,
    filters: Vec<BpfProgram>,
    steps: Arc<[Step]>,
    privileged: bool,
}

impl Armed {
    /// Has a command confine itself between fork and exec.
    pub(super) fn prepare(
        command: &mut Command,
        entry: Option<(Entry, Ends)>,
        rules: Option<RulesetCreated>,
        filters: Vec<BpfProgram>,
    ) -> Self {
        let (entry, ends) = entry.unzip();
        let steps = entry.as_ref().map(|entry| Arc::clone(&entry.steps)).unwrap_or_default();
        let privileged = entry.as_ref().is_some_and(|entry| entry.privileged);
        enter::prepare(command, entry);
        Self { ends, rules, filters, steps, privileged }
    }

    /// Starts the command. The calling thread gets the same rules and filters, and the command dies
    /// with the thread.
    pub(crate) fn spawn(self, command: &mut Command) -> Result<Child, ConfineError> {
        let (spawned, _) = self.run(command);
        spawned
    }

    pub(super) fn run(self, command: &mut Command) -> (Result<Child, ConfineError>, Seen) {
        let Self { ends, rules, filters, steps, privileged } = self;
        if let Some(Err(error)) = rules.map(RulesetCreated::restrict_self) {
            return (Err(error.into()), Seen::default());
        }
        if let Err(error) = filters.iter().try_for_each(|filter| seccompiler::apply_filter(filter))
        {
            return (Err(error.into()), Seen::default());
        }
        let Some(Ends { parent, child }) = ends else {
            return (command.spawn().map_err(ConfineError::Io), Seen::default());
        };
        let usher = std::thread::Builder::new().name("usher".into());
        let usher = match usher.spawn(move || handshake::attend(parent, privileged)) {
            Ok(usher) => usher,
            Err(error) => return (Err(error.into()), Seen::default()),
        };
        let spawned = command.spawn();
        // The usher ends when no process has this end any more.
        drop(child);
        let seen = usher.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        match (spawned, seen) {
            (Ok(child), seen) => (Ok(child), seen.unwrap_or_default()),
            (Err(_), Err(error)) => (Err(error.into()), Seen::default()),
            (Err(source), Ok(seen)) => {
                let failed = seen.failed.and_then(|number| steps.get(number));
                let error = match failed {
                    Some(step) => ConfineError::Step { step: format!("{step:?}"), source },
                    None => source.into(),
                };
                (Err(error), seen)
            }
        }
    }
}

pub(super) fn entry(privileged: bool, steps: Vec<Step>) -> io::Result<(Entry, Ends)> {
    let (parent, child) = UnixStream::pair()?;
    let base = BASES.iter().find(|base| Path::new(base).is_dir()).unwrap_or(&"/");
    let entry = Entry {
        child: child.as_raw_fd(),
        parent: parent.as_raw_fd(),
        privileged,
        base: CString::new(*base)?,
        steps: steps.into(),
        waits_at: None,
        kept: CapabilitySet::empty(),
    };
    Ok((entry, Ends { parent, child }))
}
