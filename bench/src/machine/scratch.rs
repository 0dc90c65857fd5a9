//! A temporary directory in the user's cache, removed at the end of the bench.
//!
//! It is not in the system's temporary directory, because a machine with the host's root directory
//! has its own there, and because snapshots of users are in the cache too. A signal runs no
//! destructors: its handler calls [`remove_all`] before the process ends.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use metaservice_private::lock;

use anyhow::Context;
use tempfile::TempDir;

static HELD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// The directory. Dropping it removes it.
pub(super) struct Scratch(TempDir);

impl Scratch {
    pub(super) fn new() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("bench.").tempdir_in(cache()?)?;
        held().push(directory.path().to_owned());
        Ok(Self(directory))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        held().retain(|path| path != self.0.path());
    }
}

/// Removes all scratch directories, before the process ends.
pub(crate) fn remove_all() {
    for path in held().drain(..) {
        let _ = std::fs::remove_dir_all(path);
    }
}

/// The cache directory of metaservice.
pub(super) fn cache() -> anyhow::Result<PathBuf> {
    let directory = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let directory =
        directory.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let directory =
        directory.context("neither XDG_CACHE_HOME nor HOME is set")?.join("metaservice");
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

fn held() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    lock(&HELD)
}
