//! list: the entries of a directory with their attributes.
//!
//! Owns the walk. As for list-folder, it descends through directory descriptors and never follows a
//! link. Lines are sent during the walk; a host that does not read slows it down.
//!
//! | what | outcome |
//! | --- | --- |
//! | nothing at the path | the failure `not found` |
//! | no directory at the path | that entry; a link that the host named is followed |
//! | a subdirectory that cannot be read | its own entry and nothing below it |
//! | the directory itself cannot be read | a failure |

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bytes::Bytes;
use metaservice_protocol::limits::MAX_LINE;
use metaservice_protocol::{
    ActionId, DirectoryEntry, EntryKind, Failure, FailureCode, ListOptions,
};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio::sync::Semaphore;

use super::failure;
use super::status::mtime_ns;
use crate::client::body::{Body, BodySender, RequestOver};
use crate::client::error::ClientError;
use crate::client::{Client, ReplyBody};
use crate::system::account;

/// The largest depth of the walk. Each level holds a descriptor.
const MAX_DEPTH: usize = 256;

/// How many walks run at once; one more fails. Each holds a blocking thread for as long as its
/// host reads.
const MAX_WALKS: usize = 8;

/// How many bytes of the reply are sent at once.
const PART: usize = 64 * 1024;

static WALKS: Semaphore = Semaphore::const_new(MAX_WALKS);

/// Serves a list action. Dropping the future cuts the reply and ends the walk.
pub(crate) async fn serve(
    client: &Client,
    id: &ActionId,
    path: &Path,
    options: ListOptions,
) -> Result<(), ClientError> {
    let Ok(_permit) = WALKS.try_acquire() else {
        let failure = Failure::new(FailureCode::Other, "too many lists are in progress");
        return client.reply_failure(id, &failure).await;
    };
    let start = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || Start::open(&start)).await;
    let start = match opened.unwrap_or(Err(Errno::IO)) {
        Ok(start) => start,
        Err(errno) => return client.reply_failure(id, &failure::from_errno(errno, path)).await,
    };
    let (sender, body) = Body::stream(None);
    let walk = async {
        let walked = tokio::task::spawn_blocking(move || {
            let mut lines = EntryLines::new(sender);
            lines.all(&start, options.recursive).map(|()| lines.sender)
        });
        // The walk ends early if the request is over. Then the request has the reason.
        if let Ok(Ok(sender)) = walked.await {
            let _ = sender.end().await;
        }
    };
    let (replied, ()) = tokio::join!(client.reply(id, ReplyBody::Lines, body), walk);
    replied
}

/// Where a walk starts.
enum Start {
    Directory(OwnedFd),
    Single(String, Box<Stat>, Option<String>),
}

impl Start {
    fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(directory) => return Ok(Self::Directory(directory)),
            Err(Errno::NOTDIR) => {}
            Err(errno) => return Err(errno),
        }
        let status = rustix::fs::lstat(path)?;
        let name = path.file_name().unwrap_or(path.as_os_str());
        let target = rustix::fs::readlink(path, Vec::new()).ok().map(|target| lossy(&target));
        Ok(Self::Single(name.to_string_lossy().into_owned(), Box::new(status), target))
    }
}

fn lossy(text: &CString) -> String {
    String::from_utf8_lossy(text.as_bytes()).into_owned()
}

/// The lines of the entries, which are sent part by part.
struct EntryLines {
    sender: BodySender,
    json: Vec<u8>,
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
    /// The first reason why the list is not complete.
    failure: Option<Failure>,
}

impl EntryLines {
    fn new(sender: BodySender) -> Self {
        let users = account::names_by_id("/etc/passwd");
        let groups = account::names_by_id("/etc/group");
        Self { sender, json: Vec::new(), users, groups, failure: None }
    }

    fn all(&mut self, start: &Start, recursive: bool) -> Result<(), RequestOver> {
        match start {
            Start::Directory(directory) => self.walk(directory, "", recursive, &mut Vec::new())?,
            Start::Single(name, status, target) => {
                self.add(name.clone(), status, target.clone())?;
            }
        }
        if let Some(failure) = self.failure.take() {
            let line = serde_json::json!({ "failure": failure });
            self.json.extend_from_slice(line.to_string().as_bytes());
            self.json.push(b'\n');
        }
        self.flush()
    }

    fn walk(
        &mut self,
        directory: &OwnedFd,
        prefix: &str,
        recursive: bool,
        above: &mut Vec<(u64, u64)>,
    ) -> Result<(), RequestOver> {
        let Ok(status) = rustix::fs::fstat(directory) else { return Ok(()) };
        let identity = (status.st_dev, status.st_ino);
        // Only a directory that is mounted into itself leads back.
        if above.contains(&identity) {
            return Ok(());
        }
        if above.len() >= MAX_DEPTH {
            self.set_incomplete(prefix, "it lies too deep");
            return Ok(());
        }
        above.push(identity);
        let (names, whole) = names(directory);
        if !whole {
            self.set_incomplete(prefix, "it cannot be read to its end");
        }
        for name in names {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let Ok(status) = rustix::fs::statat(directory, &name, flags) else { continue };
            let path = format!("{prefix}{}", lossy(&name));
            let kind = FileType::from_raw_mode(status.st_mode);
            let target = match kind {
                FileType::Symlink => {
                    rustix::fs::readlinkat(directory, &name, Vec::new()).ok().map(|t| lossy(&t))
                }
                _ => None,
            };
            self.add(path.clone(), &status, target)?;
            if recursive && kind == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(child) = rustix::fs::openat(directory, &name, flags, Mode::empty()) {
                    self.walk(&child, &(path + "/"), true, above)?;
                }
            }
        }
        above.pop();
        Ok(())
    }

    fn set_incomplete(&mut self, directory: &str, reason: &str) {
        let directory = if directory.is_empty() { "the directory" } else { directory };
        let message = format!("the list is not complete: {directory}: {reason}");
        self.failure.get_or_insert_with(|| Failure::new(FailureCode::Other, message));
    }

    fn add(
        &mut self,
        path: String,
        status: &Stat,
        target: Option<String>,
    ) -> Result<(), RequestOver> {
        let entry = DirectoryEntry {
            path,
            kind: kind(FileType::from_raw_mode(status.st_mode)),
            size: u64::try_from(status.st_size).unwrap_or(0),
            mode: status.st_mode & 0o7777,
            mtime_ns: mtime_ns(status),
            uid: status.st_uid,
            gid: status.st_gid,
            // The width of this field depends on the target.
            links: status.st_nlink as _,
            user: self.users.get(&status.st_uid).cloned(),
            group: self.groups.get(&status.st_gid).cloned(),
            target,
        };
        let before = self.json.len();
        let written = serde_json::to_writer(&mut self.json, &entry).is_ok();
        if written && self.json.len() - before < MAX_LINE {
            self.json.push(b'\n');
        } else {
            self.json.truncate(before);
            self.set_incomplete("", "a name is too long for a line");
        }
        if self.json.len() >= PART { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), RequestOver> {
        let part = std::mem::take(&mut self.json);
        if part.is_empty() { Ok(()) } else { self.sender.send_blocking(Bytes::from(part)) }
    }
}

const fn kind(kind: FileType) -> EntryKind {
    match kind {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Link,
        FileType::Fifo => EntryKind::Fifo,
        FileType::Socket => EntryKind::Socket,
        FileType::BlockDevice => EntryKind::BlockDevice,
        FileType::CharacterDevice => EntryKind::CharacterDevice,
        FileType::Unknown => EntryKind::Other,
    }
}

/// The names in a directory, sorted by their bytes, and whether these are all.
fn names(directory: impl AsFd) -> (Vec<CString>, bool) {
    let mut names = Vec::new();
    let Ok(mut entries) = Dir::read_from(directory) else { return (names, false) };
    let mut whole = true;
    while let Some(entry) = entries.read() {
        // A directory on a broken disk is listed as far as it can be read.
        let Ok(entry) = entry else {
            whole = false;
            break;
        };
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    (names, whole)
}

#[cfg(test)]
mod tests {
    use rustix::fs::CWD;

    use super::*;

    fn list(path: &Path, recursive: bool) -> Result<Vec<DirectoryEntry>, Errno> {
        let start = Start::open(path)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (sender, mut body) = Body::stream(None);
        let walk = std::thread::spawn(move || {
            let mut lines = EntryLines::new(sender);
            lines.all(&start, recursive).unwrap();
            lines.sender.send_blocking(Bytes::new()).unwrap();
        });
        let mut json = Vec::new();
        runtime.block_on(async {
            loop {
                let pinned = std::pin::Pin::new(&mut body);
                let mut pinned = Some(pinned);
                let frame = std::future::poll_fn(|cx| {
                    http_body::Body::poll_frame(pinned.as_mut().unwrap().as_mut(), cx)
                });
                let data = frame.await.unwrap().unwrap().into_data().unwrap();
                if data.is_empty() {
                    break;
                }
                json.extend_from_slice(&data);
            }
        });
        walk.join().unwrap();
        let lines = json.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.map(|line| serde_json::from_slice(line).unwrap()).collect())
    }

    #[test]
    fn a_tree_is_listed_with_its_attributes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::create_dir(path.join("b")).unwrap();
        std::fs::write(path.join("b/x"), b"abc").unwrap();
        std::os::unix::fs::symlink("/nowhere", path.join("a")).unwrap();
        rustix::fs::mknodat(CWD, path.join("c"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        // A link to a parent is not followed.
        std::os::unix::fs::symlink("..", path.join("b/up")).unwrap();
        let seen = |recursive| -> Vec<(String, EntryKind)> {
            list(path, recursive).unwrap().into_iter().map(|e| (e.path, e.kind)).collect()
        };
        let is = |path: &str, kind| (path.to_owned(), kind);
        use EntryKind::{Directory, Fifo, File, Link};
        assert_eq!(seen(false), [is("a", Link), is("b", Directory), is("c", Fifo)]);
        assert_eq!(
            seen(true),
            [is("a", Link), is("b", Directory), is("b/up", Link), is("b/x", File), is("c", Fifo)]
        );
        let entries = list(path, true).unwrap();
        assert_eq!(entries[0].target.as_deref(), Some("/nowhere"));
        let file = &entries[3];
        assert_eq!((file.size, file.links), (3, 1));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(
            (i128::from(file.mtime_ns) - i128::try_from(now.as_nanos()).unwrap()).abs()
                < 60_000_000_000
        );
    }

    #[test]
    fn a_file_lists_itself_and_a_missing_path_is_not_found() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let entries = list(&file, true).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].path, "file");
        let missing = list(&directory.path().join("none"), false).unwrap_err();
        assert_eq!(failure::from_errno(missing, Path::new("/x")).code, FailureCode::NotFound);
    }
}
