//! Where the cache is.

use std::path::PathBuf;

use metaservice_private::bases::BaseDirectory;
use metaservice_private::{Location, PrivateError};

/// The cache's directory in its base.
const NAME: &str = "metaservice";

/// Where the cache is: `$XDG_CACHE_HOME/metaservice`, or `~/.cache/metaservice`.
pub(crate) fn folder() -> Option<PathBuf> {
    Some(BaseDirectory::cache()?.path().join(NAME))
}

/// The cache, if what is in it may be run and booted: only this user or root could have put it
/// there.
pub(crate) fn trusted() -> Result<Option<PathBuf>, PrivateError> {
    let Some(folder) = folder() else { return Ok(None) };
    for name in ["bin", "kernel", "qemu"] {
        if folder.join(name).exists() {
            Location::Cache(name).open()?;
        }
    }
    Ok(Some(folder))
}
