//! Actions: what the host asks of a guest, and what the guest replies.
//!
//! Owns the [table](ActionKind) of all types, the JSON that a poll is answered with, and the
//! payloads of each type. It does not decide which poll gets which action: that is the host's
//! queue.

mod attach;
mod description;
mod dial;
mod exec;
mod file;
mod id;
mod json;
mod list;
mod poll_answer;
mod signal;
mod start;
mod stats;
mod table;

pub use attach::Attach;
pub use description::{ActionDescription, ReplyKind};
pub use dial::Dial;
pub use exec::{Detached, Exec, ExecOptions, TerminalSize};
pub use file::{FileHead, Form, Read, ReadOptions, Resume, StreamFrom, Write, WriteOptions};
pub use id::{ActionId, InvalidActionId};
pub use list::{DirectoryEntry, EntryKind, Files, List, ListOptions};
pub use poll_answer::{Action, PollAnswer};
pub use signal::Signal;
pub use start::StartOptions;
pub use stats::{Stats, StatsOptions};
pub use table::{ActionKind, ActionRequest};
