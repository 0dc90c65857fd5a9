//! Where the cache is.

use std::path::PathBuf;

use metaservice_private::bases::BaseDirectory;
use metaservice_private::{Location, PrivateError};

/// The name of the cache in the user's cache directory.
const NAME: &str = "metaservice";

/// The cache: `$XDG_CACHE_HOME/metaservice`, or `~/.cache/metaservice`.
pub(crate) fn place() -> Option<PathBuf> {
    Some(BaseDirectory::cache()?.path().join(NAME))
}

/// The cache, if its programs and kernels are trusted: only this user or root can have put them
/// there.
pub(crate) fn trusted() -> Result<Option<PathBuf>, PrivateError> {
    let Some(directory) = place() else { return Ok(None) };
    for name in ["bin", "kernel", "qemu"] {
        if directory.join(name).exists() {
            Location::Cache(name).open()?;
        }
    }
    Ok(Some(directory))
}
