//! A folder of the bench's own in the user's cache, gone when the bench is.
//!
//! It lies there and not in the temporary folder, because that is the guest's own in a machine
//! whose root is this host's, and because saved machines of users lie there too. An interrupt
//! runs no destructors: [`remove_all`] is for whoever ends the process then.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use tempfile::TempDir;

static HELD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// The folder. Dropping it removes it.
pub(super) struct Scratch(TempDir);

impl Scratch {
    pub(super) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench.").tempdir_in(cache()?)?;
        held().push(folder.path().to_owned());
        Ok(Self(folder))
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

/// Removes those that are there; the process is about to end.
pub(crate) fn remove_all() {
    for path in held().drain(..) {
        let _ = std::fs::remove_dir_all(path);
    }
}

/// The folder in which our tools are cached.
pub(super) fn cache() -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let folder = folder.context("neither XDG_CACHE_HOME nor HOME is set")?.join("metaservice");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn held() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}
