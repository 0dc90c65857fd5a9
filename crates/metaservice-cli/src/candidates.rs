//! What completes on the command line: the names of the jobs that run, and of images.

use std::ffi::OsStr;

use clap_complete::CompletionCandidate;
use clap_complete::engine::{PathCompleter, ValueCompleter};

use metaservice_image::ImageStore;

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

/// Names of images.
pub(crate) fn images(typed: &OsStr) -> Vec<CompletionCandidate> {
    let listed = ImageStore::of_user().and_then(|store| store.list()).unwrap_or_default();
    let names = listed.0.into_iter().flat_map(|image| image.names);
    fitting(names.map(|name| name.to_string()), typed, "")
}

/// What has a machine saved: an image, or the built-in guest.
pub(crate) fn snapshots(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut candidates = images(typed);
    candidates.extend(fitting(["builtin".to_owned()], typed, ""));
    candidates
}

/// What a machine boots from: an image's name, or a path of ours.
pub(crate) fn disks(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut candidates = images(typed);
    candidates.extend(PathCompleter::any().complete(typed));
    candidates
}

fn names(typed: &OsStr, suffix: &str) -> Vec<CompletionCandidate> {
    // A key that is pressed shows no error.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let names = runtime
        .ok()
        .and_then(|runtime| runtime.block_on(metaservice_sandbox::control::names()).ok());
    fitting(names.unwrap_or_default(), typed, suffix)
}

fn fitting(
    names: impl IntoIterator<Item = String>,
    typed: &OsStr,
    suffix: &str,
) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let fitting = names.into_iter().filter(|name| name.starts_with(typed));
    fitting.map(|name| CompletionCandidate::new(format!("{name}{suffix}"))).collect()
}
