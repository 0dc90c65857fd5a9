//! The files of a snapshot: room for the memory, manifests, attributes by which changes are seen.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use metaservice_private::hex;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::error::SnapshotError;
use crate::spec::snapshot::SnapshotFiles;

/// The prefix of the directories of new snapshots.
pub(super) const MAKING: &str = ".making-";

/// The largest manifest.
const MAX_MANIFEST: u64 = 1024 * 1024;

pub(super) fn files(directory: &Path, disk: bool) -> SnapshotFiles {
    SnapshotFiles {
        memory: directory.join("memory"),
        disk: disk.then(|| directory.join("disk")),
        empty: directory.join("empty"),
    }
}

/// Checks that a memory that becomes full finds room. If it finds none, QEMU is killed.
pub(super) fn check_room(directory: &Path, needed: u64) -> Result<(), SnapshotError> {
    let available = available(&File::open(directory)?)?;
    if needed > available { Err(SnapshotError::Full { needed, available }) } else { Ok(()) }
}

fn available(file: &File) -> io::Result<u64> {
    let found = rustix::fs::fstatvfs(file)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Reserves the room for a memory: a page that finds no room kills QEMU, without a message. On a
/// file system that cannot reserve it, other processes can take the room meanwhile.
pub(super) fn reserve(memory: &File, size: u64) -> Result<(), SnapshotError> {
    match fallocate(memory, FallocateFlags::empty(), 0, size) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(Errno::NOSPC | Errno::DQUOT) => {
            Err(SnapshotError::Full { needed: size, available: available(memory)? })
        }
        Err(errno) => Err(io::Error::from(errno).into()),
    }
}

/// Releases the parts of a reserved file that were never written. A part that cannot be released
/// stays reserved.
pub(super) fn release_holes(memory: &File) -> io::Result<()> {
    let end = memory.metadata()?.len();
    let mut at = 0;
    while at < end {
        let Ok(hole) = seek(memory, SeekFrom::Hole(at)) else { break };
        let data = match seek(memory, SeekFrom::Data(hole)) {
            Ok(data) => data,
            Err(Errno::NXIO) => end,
            Err(_) => break,
        };
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if hole >= data || fallocate(memory, how, hole, data - hole).is_err() {
            break;
        }
        at = data;
    }
    Ok(())
}

pub(super) fn read_manifest(directory: &Path) -> Result<Value, SnapshotError> {
    let mut text = Vec::new();
    File::open(directory.join("manifest"))?.take(MAX_MANIFEST).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|_| SnapshotError::Broken("its manifest cannot be read"))
}

/// The attributes by which a change of a large file is noticed, without reading it.
pub(super) fn describe(metadata: &fs::Metadata) -> Value {
    json!([metadata.size(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()])
}

pub(super) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Creates a file that only this user can use.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Creates a file with its content, on the disk.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
