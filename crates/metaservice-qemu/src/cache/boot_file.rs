//! A file that a machine boots from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use metaservice_private::PartialFile;

/// What a user should know of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheNotice {
    /// A file was not what had been written, and was made anew.
    Damaged(PathBuf),
    /// The cache cannot be written: the file is a temporary one.
    Unwritable {
        /// The cache's directory.
        path: PathBuf,
        /// Why, in words.
        why: String,
    },
}

/// A file that a machine boots from.
#[derive(Debug, Clone)]
pub struct BootFile {
    pub(super) path: PathBuf,
    pub(super) notice: Option<CacheNotice>,
    /// It goes with the last of its users.
    pub(super) _temporary: Option<Arc<PartialFile>>,
}

impl BootFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is to be said of it.
    #[must_use]
    pub const fn notice(&self) -> Option<&CacheNotice> {
        self.notice.as_ref()
    }
}

impl<P: Into<PathBuf>> From<P> for BootFile {
    fn from(path: P) -> Self {
        Self { path: path.into(), notice: None, _temporary: None }
    }
}

impl PartialEq for BootFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for BootFile {}
