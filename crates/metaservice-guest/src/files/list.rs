//! list: the entries of a folder with their attributes.
//!
//! Owns the walk. As with list-folder it goes down by folder descriptors and never through a link,
//! and the lines are sent while it goes on; a host that does not read holds it back.
//!
//! | what | outcome |
//! | --- | --- |
//! | nothing at the path | refused as not found |
//! | no folder at the path | that one entry; a link that the host named is followed |
//! | a folder below that cannot be read | its own entry and nothing below it |
//! | the folder itself cannot be read | refused |

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

use crate::client::body::{Body, BodySender, RequestOver};
use crate::client::{Client, ClientError, ReplyBody};
use crate::system::account;

/// How deep the walk goes; each level keeps a file open.
const MAX_DEPTH: usize = 256;

/// How many walks go on at once: each holds one of the runtime's blocking threads for as long as
/// its host reads. One more is refused.
const MAX_WALKS: usize = 8;

/// How much of the reply is sent at once.
const PART: usize = 64 * 1024;

static WALKS: Semaphore = Semaphore::const_new(MAX_WALKS);

/// Answers a list action. Dropping the future cuts the reply and ends the walk.
pub(crate) async fn serve(
    client: &Client,
    id: &ActionId,
    path: &Path,
    options: ListOptions,
) -> Result<(), ClientError> {
    let Ok(_permit) = WALKS.try_acquire() else {
        let failure = Failure::new(FailureCode::Other, "too many lists are under way");
        return client.refuse(id, &failure).await;
    };
    let start = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || Start::open(&start)).await;
    let start = match opened {
        Ok(Ok(start)) => start,
        Ok(Err(errno)) => return client.refuse(id, &failure(errno, path)).await,
        Err(_) => return client.refuse(id, &failure(Errno::IO, path)).await,
    };
    let (sender, body) = Body::stream(None);
    let walk = async {
        let walked = tokio::task::spawn_blocking(move || {
            let mut lines = Lines::new(sender);
            lines.all(&start, options.recursive).map(|()| lines.sender)
        });
        // The walk ends early when the request is over, which has its own reason.
        if let Ok(Ok(sender)) = walked.await {
            let _ = sender.end().await;
        }
    };
    let (replied, ()) = tokio::join!(client.reply(id, ReplyBody::Lines, body), walk);
    replied
}

/// What the system's word for a failed look at a path is to the host.
pub(crate) fn failure(errno: Errno, path: &Path) -> Failure {
    let code = match errno {
        Errno::NOENT | Errno::NOTDIR => FailureCode::NotFound,
        Errno::ACCESS | Errno::PERM => FailureCode::PermissionDenied,
        Errno::NOSPC | Errno::DQUOT => FailureCode::NoSpace,
        Errno::ROFS => FailureCode::ReadOnly,
        _ => FailureCode::Other,
    };
    let reason = crate::diagnostics::chain(&std::io::Error::from(errno));
    Failure::new(code, format!("{}: {reason}", path.display()))
}

/// Where a walk begins.
enum Start {
    Folder(OwnedFd),
    Single(String, Box<Stat>, Option<String>),
}

impl Start {
    fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(folder) => return Ok(Self::Folder(folder)),
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

/// The names behind the numbers, as they were when the walk began.
struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    fn read() -> Self {
        Self { users: account::names("/etc/passwd"), groups: account::names("/etc/group") }
    }
}

struct Lines {
    sender: BodySender,
    json: Vec<u8>,
    names: Names,
    /// Why not everything could be listed; the first reason counts.
    failure: Option<Failure>,
}

impl Lines {
    fn new(sender: BodySender) -> Self {
        Self { sender, json: Vec::new(), names: Names::read(), failure: None }
    }

    fn all(&mut self, start: &Start, recursive: bool) -> Result<(), RequestOver> {
        match start {
            Start::Folder(folder) => self.walk(folder, "", recursive, &mut Vec::new())?,
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
        folder: &OwnedFd,
        prefix: &str,
        recursive: bool,
        above: &mut Vec<(u64, u64)>,
    ) -> Result<(), RequestOver> {
        let Ok(status) = rustix::fs::fstat(folder) else { return Ok(()) };
        let identity = (status.st_dev, status.st_ino);
        // Only a folder that is mounted into itself leads back.
        if above.contains(&identity) {
            return Ok(());
        }
        if above.len() >= MAX_DEPTH {
            self.incomplete(prefix, "it lies too deep");
            return Ok(());
        }
        above.push(identity);
        let (names, whole) = names(folder);
        if !whole {
            self.incomplete(prefix, "it cannot be read to its end");
        }
        for name in names {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let Ok(status) = rustix::fs::statat(folder, &name, flags) else { continue };
            let path = format!("{prefix}{}", lossy(&name));
            let kind = FileType::from_raw_mode(status.st_mode);
            let target = match kind {
                FileType::Symlink => {
                    rustix::fs::readlinkat(folder, &name, Vec::new()).ok().map(|t| lossy(&t))
                }
                _ => None,
            };
            self.add(path.clone(), &status, target)?;
            if recursive && kind == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(child) = rustix::fs::openat(folder, &name, flags, Mode::empty()) {
                    self.walk(&child, &(path + "/"), true, above)?;
                }
            }
        }
        above.pop();
        Ok(())
    }

    fn incomplete(&mut self, folder: &str, reason: &str) {
        let folder = if folder.is_empty() { "the folder" } else { folder };
        let message = format!("the list is not complete: {folder}: {reason}");
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
            // Its width varies by target.
            links: status.st_nlink as _,
            user: self.names.users.get(&status.st_uid).cloned(),
            group: self.names.groups.get(&status.st_gid).cloned(),
            target,
        };
        let before = self.json.len();
        let written = serde_json::to_writer(&mut self.json, &entry).is_ok();
        if written && self.json.len() - before < MAX_LINE {
            self.json.push(b'\n');
        } else {
            self.json.truncate(before);
            self.incomplete("", "a name is too long for a line");
        }
        if self.json.len() >= PART { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), RequestOver> {
        let part = std::mem::take(&mut self.json);
        if part.is_empty() { Ok(()) } else { self.sender.send_blocking(Bytes::from(part)) }
    }
}

/// When something was last modified, in nanoseconds since 1970.
pub(crate) fn mtime_ns(status: &Stat) -> i64 {
    let nanoseconds = i64::try_from(status.st_mtime_nsec).unwrap_or(0);
    status.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
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

/// The names in a folder, sorted by their bytes, and whether these are all.
fn names(folder: impl AsFd) -> (Vec<CString>, bool) {
    let mut names = Vec::new();
    let Ok(mut entries) = Dir::read_from(folder) else { return (names, false) };
    let mut whole = true;
    while let Some(entry) = entries.read() {
        // A folder on a broken disk is listed as far as it can be read.
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
            let mut lines = Lines::new(sender);
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
    fn a_tree_is_listed_with_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::create_dir(path.join("b")).unwrap();
        std::fs::write(path.join("b/x"), b"abc").unwrap();
        std::os::unix::fs::symlink("/nowhere", path.join("a")).unwrap();
        rustix::fs::mknodat(CWD, path.join("c"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        // A link to a folder above is no way around.
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
    fn one_file_lists_itself_and_nothing_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let entries = list(&file, true).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].path, "file");
        let missing = list(&folder.path().join("none"), false).unwrap_err();
        assert_eq!(failure(missing, Path::new("/x")).code, FailureCode::NotFound);
    }
}
