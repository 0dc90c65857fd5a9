//! Shell completion of the names of running jobs, images, paths, signals, limits and presets.
//!
//! This module owns the completers of the flags. An error gives no completions. Names of files in a
//! guest are limited in number and time, and only plain ones are offered: a shell may insert them
//! into its line without quotes.

use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::CompletionCandidate;
use clap_complete::engine::{PathCompleter, ValueCompleter};

use futures_util::TryStreamExt;
use metaservice::{DirectoryEntry, EntryKind};
use metaservice_egress::file::Preset;
use metaservice_image::ImageStore;
use metaservice_sandbox::control;
use metaservice_sandbox::history::Jobs;

use crate::{limits, signals};

/// Completes the names of running jobs.
pub(crate) fn jobs(typed: &OsStr) -> Vec<CompletionCandidate> {
    names(typed, "")
}

/// Completes the names of all jobs, also those that have ended.
pub(crate) fn all_jobs(typed: &OsStr) -> Vec<CompletionCandidate> {
    let names = Jobs::open().and_then(|jobs| jobs.names()).unwrap_or_default();
    fitting(names.iter().map(ToString::to_string), typed, "")
}

/// Completes the ends of a copy for `cp`: `JOB:PATH` or a path of the host.
pub(crate) fn places(typed: &OsStr) -> Vec<CompletionCandidate> {
    if let Some((job, path)) = typed.to_str().and_then(in_guest) {
        return guest_paths(job, path);
    }
    let mut candidates = names(typed, ":");
    candidates.extend(PathCompleter::any().complete(typed));
    candidates
}

/// Completes a directory for `ls`: the name of a job, or `JOB:PATH`.
pub(crate) fn jobs_and_directories(typed: &OsStr) -> Vec<CompletionCandidate> {
    match typed.to_str().and_then(in_guest) {
        Some((job, path)) => guest_paths(job, path),
        None => jobs(typed),
    }
}

/// Completes the names of signals.
pub(crate) fn signals(typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_ascii_uppercase();
    let begins = typed.to_str().is_some_and(|typed| typed.starts_with('S') && typed != "S");
    let prefix = if begins { "SIG" } else { "" };
    fitting(signals::names().map(|name| format!("{prefix}{name}")), &typed, "")
}

/// Completes the names of limits, with their defaults.
pub(crate) fn limits(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let limits = limits::LIMITS.iter().map(|(name, value, what)| (format!("{name}={value}"), what));
    let fitting = limits.filter(|(limit, _)| limit.starts_with(typed));
    let shown = |(limit, what): (String, &&str)| {
        CompletionCandidate::new(limit).help(Some(what.replace('`', "").into()))
    };
    fitting.map(shown).collect()
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

/// Completes the names of presets.
pub(crate) fn presets(typed: &OsStr) -> Vec<CompletionCandidate> {
    let fitting = Preset::all()
        .iter()
        .filter(|preset| typed.to_str().is_some_and(|typed| preset.name().starts_with(typed)));
    let shown =
        |preset: &Preset| CompletionCandidate::new(preset.name()).help(Some(preset.about().into()));
    fitting.map(shown).collect()
}

/// Completes a policy: the name of a preset, or a path of the host.
pub(crate) fn policies(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut candidates = presets(typed);
    candidates.extend(PathCompleter::file().complete(typed));
    candidates
}

fn names(typed: &OsStr, suffix: &str) -> Vec<CompletionCandidate> {
    let names = within(control::names()).and_then(Result::ok);
    fitting(names.unwrap_or_default(), typed, suffix)
}

/// How long a job and its guest may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The output of a future, if it completes in time. A completion must not print an error.
fn within<T>(answer: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let answer = async { tokio::time::timeout(ANSWER_TIMEOUT, answer).await.ok() };
    let answer = runtime.block_on(answer);
    runtime.shutdown_background();
    answer
}

/// Splits `JOB:PATH`, as `cp` does.
fn in_guest(typed: &str) -> Option<(&str, &str)> {
    let (job, path) = typed.split_once(':')?;
    let is_host = typed.starts_with(['/', '.']) || job.is_empty() || job.contains('/');
    (!is_host).then_some((job, path))
}

/// How many paths of a guest are offered.
const MAX_PATHS: usize = 500;

/// The longest name of a file in Linux, in bytes.
const MAX_NAME: usize = 255;

/// Completes a path in the guest of a job. Without a directory, this is the root.
fn guest_paths(job: &str, path: &str) -> Vec<CompletionCandidate> {
    let (directory, begun) = match path.rsplit_once('/') {
        Some((directory, begun)) => (format!("{directory}/"), begun),
        None if path.is_empty() => ("/".to_owned(), ""),
        None => return Vec::new(),
    };
    let mut found = Vec::new();
    // What has arrived in time is offered.
    within(async {
        let client = control::find(job).await.ok()?;
        let mut entries = client.list(&*directory).entries().await.ok()?;
        while found.len() < MAX_PATHS {
            let entry = entries.try_next().await.ok()??;
            if entry.path.starts_with(begun) && is_plain(&entry.path) {
                found.push(candidate(job, &directory, &entry));
            }
        }
        Some(())
    });
    found.sort();
    found
}

fn candidate(job: &str, directory: &str, entry: &DirectoryEntry) -> CompletionCandidate {
    let slash = if entry.kind == EntryKind::Directory { "/" } else { "" };
    let whole = format!("{job}:{directory}{}{slash}", entry.path);
    CompletionCandidate::new(whole).hide(entry.path.starts_with('.'))
}

/// Whether the name of a file means nothing to a shell or a terminal.
fn is_plain(name: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || "._-+,@%".contains(c);
    !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME && name.chars().all(is_plain)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn values(candidates: &[CompletionCandidate]) -> Vec<&str> {
        candidates.iter().map(|one| one.get_value().to_str().unwrap()).collect()
    }

    #[test]
    fn only_plain_names_of_a_guest_are_offered() {
        for plain in ["etc", ".profile", "a-b_c.1", "libstdc++.so", "na\u{ef}ve", "a@b,c%"] {
            assert!(is_plain(plain), "{plain}");
        }
        let long = "x".repeat(MAX_NAME + 1);
        let hostile = [
            "",
            ".",
            "..",
            "a b",
            "a/b",
            "$(id)",
            "`id`",
            "a;b",
            "a|b",
            "a&b",
            "a\nb",
            "a\u{b}b",
            "\u{1b}[2J",
            "a\u{202e}b",
            "'",
            "\"",
            "\\",
            "~",
            "*",
            "?",
            "[a]",
            "{a,b}",
            "!x",
            "#x",
            "a:b",
            "a=b",
            "<a",
            ">a",
            "(a)",
            "\u{a0}",
            &long,
        ];
        for name in hostile {
            assert!(!is_plain(name), "{name:?}");
        }
    }

    #[test]
    fn a_place_in_a_guest_is_told_from_a_path_of_the_host() {
        assert_eq!(in_guest("build:/et"), Some(("build", "/et")));
        assert_eq!(in_guest("build:"), Some(("build", "")));
        for host in ["build", "./a:b", "/a:b", "a/b:c", ":x", ""] {
            assert_eq!(in_guest(host), None, "{host}");
        }
    }

    #[test]
    fn signals_complete_in_each_form() {
        let of = |typed: &str| signals(OsStr::new(typed));
        assert_eq!(values(&of("TER")), ["TERM"]);
        assert_eq!(values(&of("sigte")), ["SIGTERM"]);
        assert_eq!(values(&of("hu")), ["HUP"]);
        assert_eq!(of("").len(), 31);
        assert_eq!(values(&of("xf")), ["XFSZ"]);
        for candidate in of("").iter().chain(&of("sig")) {
            assert!(signals::parse(candidate.get_value().to_str().unwrap()).is_ok());
        }
    }

    #[test]
    fn limits_complete_with_their_defaults() {
        let offered = limits(OsStr::new("half"));
        assert_eq!(values(&offered), ["half-open=1024"]);
        assert!(offered[0].get_help().is_some());
        assert_eq!(limits(OsStr::new("")).len(), limits::LIMITS.len());
    }
}
