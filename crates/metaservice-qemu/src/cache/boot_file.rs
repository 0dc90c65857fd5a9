//! A file that a machine boots from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use metaservice_private::PartialFile;

/// What a user should know about the cache. It is exhaustive, so that a front end has words for
/// each notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheNotice {
    /// A cached file was damaged, and was made again.
    Damaged(PathBuf),
    /// The cache cannot be written, so the file is a temporary one.
    Unwritable {
        /// The directory of the cache.
        path: PathBuf,
        /// The cause, for people.
        why: String,
    },
}

/// A file that a machine boots from. A temporary file is removed with the last clone.
#[derive(Debug, Clone)]
pub struct BootFile {
    pub(super) path: PathBuf,
    pub(super) notice: Option<CacheNotice>,
    /// Removes the file when the last clone is dropped.
    pub(super) _temporary: Option<Arc<PartialFile>>,
}

impl BootFile {
    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the user should know about it.
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
