//! What completes on the command line: the names of the jobs that run.

use std::ffi::OsStr;

use clap_complete::CompletionCandidate;
use clap_complete::engine::{PathCompleter, ValueCompleter};

use crate::sockets;

/// Names of jobs.
pub(crate) fn jobs(typed: &OsStr) -> Vec<CompletionCandidate> {
    names(typed, "")
}

/// What `cp` takes: `JOB:`, or a path of ours.
pub(crate) fn places(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut candidates = names(typed, ":");
    candidates.extend(PathCompleter::any().complete(typed));
    candidates
}

fn names(typed: &OsStr, suffix: &str) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    // Whoever presses a key wants no error.
    let names = sockets::names().unwrap_or_default();
    let fitting = names.into_iter().filter(|name| name.starts_with(typed));
    fitting.map(|name| CompletionCandidate::new(format!("{name}{suffix}"))).collect()
}
