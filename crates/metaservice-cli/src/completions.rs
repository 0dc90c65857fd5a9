//! Shell completion of the names of running jobs, images and paths.
//!
//! This module owns the completers of the flags. An error gives no completions.

use std::ffi::OsStr;

use clap_complete::CompletionCandidate;
use clap_complete::engine::{PathCompleter, ValueCompleter};

use metaservice_image::ImageStore;
use metaservice_sandbox::history::Jobs;

/// Completes the names of running jobs.
pub(crate) fn jobs(typed: &OsStr) -> Vec<CompletionCandidate> {
    names(typed, "")
}

/// Completes the names of all jobs, also those that have ended.
pub(crate) fn all_jobs(typed: &OsStr) -> Vec<CompletionCandidate> {
    let names = Jobs::open().and_then(|jobs| jobs.names()).unwrap_or_default();
    fitting(names.iter().map(ToString::to_string), typed, "")
}

/// Completes the ends of a copy for `cp`: `JOB:` or a path of the host.
pub(crate) fn places(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut candidates = names(typed, ":");
    candidates.extend(PathCompleter::any().complete(typed));
    candidates
}

/// Completes the names of images.
pub(crate) fn images(typed: &OsStr) -> Vec<CompletionCandidate> {
    let listed = ImageStore::of_user().and_then(|store| store.list()).unwrap_or_default();
    let names = listed.0.into_iter().flat_map(|image| image.names);
    fitting(names.map(|name| name.to_string()), typed, "")
}

/// Completes what can have a snapshot: an image, or the built-in guest.
pub(crate) fn snapshots(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut candidates = images(typed);
    candidates.extend(fitting(["builtin".to_owned()], typed, ""));
    candidates
}

/// Completes what a machine can boot from: the name of an image, or a path of the host.
pub(crate) fn disks(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut candidates = images(typed);
    candidates.extend(PathCompleter::any().complete(typed));
    candidates
}

fn names(typed: &OsStr, suffix: &str) -> Vec<CompletionCandidate> {
    // A completion must not print an error.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let names = runtime
        .ok()
        .and_then(|runtime| runtime.block_on(metaservice_sandbox::control::names()).ok());
    fitting(names.unwrap_or_default(), typed, suffix)
}

/// The names that begin as typed, each with the suffix.
pub(crate) fn fitting(
    names: impl IntoIterator<Item = String>,
    typed: &OsStr,
    suffix: &str,
) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let fitting = names.into_iter().filter(|name| name.starts_with(typed));
    fitting.map(|name| CompletionCandidate::new(format!("{name}{suffix}"))).collect()
}
