//! The store of snapshots on disk. The key of a snapshot covers everything that it was made from.
//!
//! Owns the directory. A snapshot is a directory in it that appears as a whole, is never changed,
//! and is removed when it cannot be restored any more. The store does not trust what it reads: a
//! snapshot whose memory file was changed, or whose state has other bytes, is broken.
//!
//! | file | content |
//! | --- | --- |
//! | `KEY/memory` | the memory, sparse; restored machines map it |
//! | `KEY/disk` | what the machine wrote to its disk, as an image over that of the disk |
//! | `KEY/state` | the state of processors and devices |
//! | `KEY/empty` | nothing: the directory of 9p devices that have no other |
//! | `KEY/manifest` | sizes, times and digests of these files, and the notes of the caller |
//! | `lock` | locked while a process makes a snapshot |
//!
//! | module | what it owns |
//! | --- | --- |
//! | `key` | which machine a snapshot is of |
//! | `store` | the directory: finding, locking, removing |
//! | `draft` | a new snapshot |
//! | `files` | room, manifests, attributes of files |
//! | `usage` | the list of snapshots, and the limit of the cache |

mod draft;
mod error;
mod files;
mod key;
mod store;
mod usage;

pub use draft::SnapshotDraft;
pub use error::SnapshotError;
pub use key::SnapshotKey;
pub use store::{Snapshot, SnapshotStore, StoreLock};
pub use usage::{InUse, StoredSnapshot};

#[cfg(test)]
mod tests;
