//! Which snapshots there are, and which of them go.
//!
//! Owns the limit of the cache. Snapshots without a disk are automatic: a run makes them again. The
//! least recently used of them go when all together are larger than the limit. One that a machine
//! runs from is in use and stays: its room would not be free before the machine ends.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::files::{MAKING, read_manifest};

/// A snapshot in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredSnapshot {
    /// Its name: the digest of everything that it was made from.
    pub name: String,
    /// The disk of its machine. `None`: a machine of the built-in guest, whose snapshots are
    /// automatic.
    pub disk: Option<PathBuf>,
    /// The number of processors, if it is known.
    pub cpus: Option<u32>,
    /// The bytes of the machine's memory.
    pub memory: u64,
    /// The bytes that it takes on the disk of the host.
    pub size: u64,
    /// When a machine was restored from it last, or when it was made.
    pub used: SystemTime,
    /// Whether a machine that was restored from it runs.
    pub in_use: bool,
}

/// Marks a snapshot as in use until it is dropped.
#[derive(Debug)]
pub struct InUse(#[expect(dead_code, reason = "the lock of the file is the mark")] File);

impl InUse {
    /// Marks the snapshot in a directory. `None`: the mark cannot be made.
    pub(super) fn mark(directory: &Path) -> Option<Self> {
        let file = File::open(directory.join("manifest")).ok()?;
        flock(&file, FlockOperation::NonBlockingLockShared).ok()?;
        Some(Self(file))
    }
}

/// The snapshots in a directory, the most recently used first.
pub(super) fn list(store: &Path) -> Vec<StoredSnapshot> {
    let entries = fs::read_dir(store).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries.filter_map(|entry| describe(&entry.path())).collect();
    all.sort_by(|one, other| other.used.cmp(&one.used).then_with(|| one.name.cmp(&other.name)));
    all
}

/// Removes the automatic snapshots that are not in use, and with `all` also those of images.
/// Returns what was removed.
pub(super) fn prune(store: &Path, all: bool) -> Vec<StoredSnapshot> {
    let mut found = list(store);
    found.retain(|snapshot| (all || snapshot.disk.is_none()) && !snapshot.in_use);
    found.retain(|snapshot| fs::remove_dir_all(store.join(&snapshot.name)).is_ok());
    found
}

/// Removes automatic snapshots until they are within the limit. The one with the name `kept` stays.
pub(super) fn evict(store: &Path, limit: u64, kept: &str) {
    for name in evicted(&list(store), limit, kept) {
        let _ = fs::remove_dir_all(store.join(name));
    }
}

/// The names of the snapshots to remove, the least recently used first. `found` has the most
/// recently used first.
fn evicted<'a>(found: &'a [StoredSnapshot], limit: u64, kept: &str) -> Vec<&'a str> {
    let automatic = || found.iter().filter(|snapshot| snapshot.disk.is_none());
    let mut total = automatic().fold(0u64, |sum, snapshot| sum.saturating_add(snapshot.size));
    let mut names = Vec::new();
    for snapshot in automatic().rev().filter(|one| !one.in_use && one.name != kept) {
        if total <= limit {
            break;
        }
        total = total.saturating_sub(snapshot.size);
        names.push(snapshot.name.as_str());
    }
    names
}

/// Describes the snapshot in a directory. `None`: there is none that could be restored.
fn describe(directory: &Path) -> Option<StoredSnapshot> {
    let name = directory.file_name()?.to_str()?.to_owned();
    if name.starts_with(MAKING) {
        return None;
    }
    let manifest = read_manifest(directory).ok()?;
    let file = File::open(directory.join("manifest")).ok()?;
    let used = file.metadata().ok()?.modified().ok()?;
    // The mark of others is a shared lock. This one ends with the file.
    let in_use = flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK);
    let files = fs::read_dir(directory).ok()?.flatten();
    let sizes = files.filter_map(|entry| Some(entry.metadata().ok()?.blocks() * 512));
    Some(StoredSnapshot {
        name,
        disk: manifest["image"].as_str().map(PathBuf::from),
        cpus: manifest["cpus"].as_u64().and_then(|cpus| cpus.try_into().ok()),
        memory: manifest["memory"][0].as_u64().unwrap_or_default(),
        size: sizes.sum(),
        used,
        in_use,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn snapshot(name: usize, size: u64, in_use: bool, automatic: bool) -> StoredSnapshot {
        StoredSnapshot {
            name: name.to_string(),
            disk: (!automatic).then(|| "/disk".into()),
            cpus: Some(1),
            memory: 1 << 30,
            size,
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(100),
            in_use,
        }
    }

    #[test]
    fn the_least_recently_used_go_until_the_rest_is_within_the_limit() {
        let found: Vec<_> = (0..4).map(|number| snapshot(number, 10, false, true)).collect();
        assert_eq!(evicted(&found, 40, "0"), Vec::<&str>::new());
        assert_eq!(evicted(&found, 39, "0"), ["3"]);
        assert_eq!(evicted(&found, 15, "0"), ["3", "2", "1"]);
        assert_eq!(evicted(&found, 0, "3"), ["2", "1", "0"]);
        let mixed = [snapshot(0, 10, false, true), snapshot(1, 90, false, false)];
        assert!(evicted(&mixed, 20, "").is_empty(), "an image's does not count");
        let used = [snapshot(0, 10, false, true), snapshot(1, 10, true, true)];
        assert_eq!(evicted(&used, 10, ""), ["0"], "one in use stays");
    }

    proptest! {
        #[test]
        fn nothing_goes_without_need_and_nothing_that_must_stay(
            sizes in prop::collection::vec((0u64..100, any::<bool>(), any::<bool>()), 0..12),
            limit in 0u64..600, kept in 0usize..12,
        ) {
            let found: Vec<_> = sizes.iter().enumerate()
                .map(|(name, (size, in_use, automatic))| snapshot(name, *size, *in_use, *automatic))
                .collect();
            let gone = evicted(&found, limit, &kept.to_string());
            let size = |name: &&str| found[name.parse::<usize>().unwrap()].size;
            let total = |names: &[&str]| -> u64 {
                let stays = |one: &&StoredSnapshot| !names.contains(&one.name.as_str());
                found.iter().filter(|one| one.disk.is_none()).filter(stays).map(|one| one.size).sum()
            };
            for name in &gone {
                let one = &found[name.parse::<usize>().unwrap()];
                prop_assert!(!one.in_use && one.disk.is_none() && **name != kept.to_string());
            }
            if let Some(last) = gone.last() {
                prop_assert!(total(&gone) + size(last) > limit, "one too many");
            }
            let could = found.iter().enumerate().any(|(name, one)| {
                !one.in_use && one.disk.is_none() && name != kept
                    && !gone.contains(&one.name.as_str())
            });
            prop_assert!(total(&gone) <= limit || !could);
        }
    }
}
