//! Measures host and agent on one machine, over its loopback interface: their cost without
//! emulation. The agent is the one that guests get; the host is the library.

mod agent;
mod artifact;
mod crowd;
mod exec;
mod list;
mod log;
mod pair;
pub(crate) mod process;
mod raw;
mod shell;

use std::process::Command;

pub(crate) use self::crowd::host as crowd_host;
use crate::measure::{Entry, Group};

/// The bytes of a transfer in a full run.
const BYTES: u64 = 512 << 20;

/// The bytes of a transfer in a quick run.
const QUICK_BYTES: u64 = 128 << 20;

/// All measures of the group, in the order of the page.
pub(crate) fn entries() -> Vec<Entry> {
    let group = Group::Loopback;
    vec![
        Entry { group, id: "log", quick: true, prepare: log::prepare },
        Entry { group, id: "artifact", quick: true, prepare: artifact::prepare },
        Entry { group, id: "shell", quick: true, prepare: shell::prepare },
        Entry { group, id: "exec", quick: true, prepare: exec::prepare },
        Entry { group, id: "list", quick: true, prepare: list::prepare_one },
        Entry { group, id: "list-many", quick: true, prepare: list::prepare_many },
        Entry { group, id: "idle", quick: true, prepare: crowd::prepare_idle },
        Entry { group, id: "crowd", quick: true, prepare: crowd::prepare_logs },
        Entry { group, id: "agent", quick: true, prepare: agent::prepare },
    ]
}

/// A command that writes this number of bytes as fast as possible: this program.
fn source(bytes: u64) -> Command {
    let mut command = Command::new(source_words(bytes).remove(0));
    command.args(&source_words(bytes)[1..]);
    command
}

fn source_words(bytes: u64) -> Vec<String> {
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    vec![program.to_string_lossy().into_owned(), "source".to_owned(), bytes.to_string()]
}
