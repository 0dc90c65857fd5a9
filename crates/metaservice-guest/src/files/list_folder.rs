//! list-folder: all plain files below a directory.
//!
//! Owns the walk and the limit of its reply. The walk descends through directory descriptors and
//! never follows a link, so a rename cannot lead it elsewhere. The only possible loops are
//! directories that are mounted into themselves. They are recognised by device and inode.
//!
//! | what | outcome |
//! | --- | --- |
//! | nothing at the path | `notFound` |
//! | a plain file at the path | that file alone |
//! | a directory that cannot be read | no files |
//! | links, devices, sockets, FIFOs; files and directories that cannot be read | left out |
//! | names that are not UTF-8 | left out with a warning: JSON cannot carry them |
//! | more paths than 10 MiB of JSON | a warning, and a longer reply, which the host rejects |
//!
//! Paths are sorted by their bytes. A link is followed only if the host named it.
//!
//! The reply is sent during the walk. A host waits until a reply starts, and then for progress. So
//! a large tree on a slow disk does not fail. If nothing is found for a while, a space is sent. If
//! the host drops the reply, the walk ends.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metaservice_protocol::ActionId;
use metaservice_protocol::limits::MAX_FILES_BYTES;
use rustix::fs::{Access, AtFlags, CWD, Dir, FileType, Mode, OFlags};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::sleep;

use super::in_memory;
use crate::client::body::{Body, RequestOver};
use crate::client::error::ClientError;
use crate::client::{Client, ReplyBody};
use crate::diagnostics::print;

/// The largest depth of the walk. Each level holds a descriptor.
const MAX_DEPTH: usize = 256;

/// How many walks run at once. Each holds a blocking thread, and artifacts need those as well.
const MAX_WALKS: usize = 8;

/// How many bytes of the reply are sent at once.
const PART: usize = 64 * 1024;

/// How many entries a directory may have to be listed without a thread.
const MAX_AT_ONCE: usize = 128;

/// How long a reply may be held back, so that it is sent in one piece.
const HOLD_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a walk may find nothing before it sends a space.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

const HEAD: &[u8] = br#"{"files":["#;
const TAIL: &[u8] = br#"],"notFound":false}"#;
const NOT_FOUND: &[u8] = br#"{"files":null,"notFound":true}"#;

static WALKS: Semaphore = Semaphore::const_new(MAX_WALKS);

/// Serves a list-folder action. Dropping the future cuts the reply and ends the walk.
pub(crate) async fn serve(client: &Client, id: &ActionId, path: &Path) -> Result<(), ClientError> {
    // A host that stops waiting for a walk that has not begun asks again.
    let _permit = WALKS.acquire().await;
    let (sender, body) = Body::stream(None);
    let path = path.to_owned();
    // A host with keep-alive gets a short reply in one piece, so that its connection is kept. One
    // of version 1 waits only for the start of the reply, so it starts before the walk.
    let hold = client.has_keep_alive();
    if hold && let Some((whole, omissions)) = at_once(&path) {
        omissions.print(&path);
        return client.reply(id, ReplyBody::Json, Body::Whole(whole)).await;
    }
    let (begin, begun) = oneshot::channel::<()>();
    let mut walking = tokio::task::spawn_blocking(move || {
        let mut begin = Some(begin);
        let listing = Listing::walk_all(&path, MAX_FILES_BYTES, hold, |part| {
            drop(begin.take());
            sender.send_blocking(part)
        });
        listing.map(|(rest, omissions)| {
            omissions.print(&path);
            (rest, sender)
        })
    });
    let soon = tokio::select! {
        biased;
        walked = &mut walking, if hold => Some(walked),
        _ = begun, if hold => None,
        () = sleep(HOLD_TIMEOUT), if hold => None,
        else => None,
    };
    match soon {
        None => {}
        Some(Ok(Ok((rest, _sender)))) => {
            return client.reply(id, ReplyBody::Json, Body::Whole(rest)).await;
        }
        // The walk failed and has dropped the sender, so the reply breaks.
        Some(_) => return client.reply(id, ReplyBody::Json, body).await,
    }
    let walk = async {
        // The walk ends early if the request is over. Then the request has the reason.
        let Ok(Ok((rest, sender))) = walking.await else { return };
        if sender.send(rest).await.is_ok() {
            let _ = sender.end().await;
        }
    };
    let (replied, ()) = tokio::join!(client.reply(id, ReplyBody::Json, body), walk);
    replied
}

/// The reply for a small directory in memory without subdirectories. Never blocks.
fn at_once(path: &Path) -> Option<(Bytes, Omissions)> {
    let path: PathBuf = path.components().collect();
    let directory = in_memory::open(&path)?;
    let entries = entries(&directory, MAX_AT_ONCE)?;
    if entries.iter().any(|entry| entry.is_directory) {
        return None;
    }
    let mut listing = Listing::new(MAX_FILES_BYTES, |_| Err(RequestOver));
    let mut text = path.to_str()?.trim_end_matches('/').to_owned();
    let length = text.len();
    for entry in entries {
        listing.entry(&directory, &entry, &mut text, length).ok()?;
    }
    listing.json.extend(TAIL);
    Some((listing.json.into(), listing.omissions))
}

/// The files that were found, as JSON that is sent part by part.
struct Listing<S> {
    send: S,
    json: Vec<u8>,
    sent: usize,
    last_sent: Instant,
    limit: usize,
    any: bool,
    omissions: Omissions,
    may_read_all: bool,
}

/// What a reply leaves out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Omissions {
    /// How many names are not UTF-8.
    names: u64,
    /// Whether the files do not fit into a reply.
    rest: bool,
}

impl Omissions {
    fn print(self, path: &Path) {
        let path = path.display();
        if self.names > 0 {
            let count = self.names;
            print(&format!("{count} names below {path} are not UTF-8 and left out"));
        }
        if self.rest {
            print(&format!("the list of files below {path} is too long for a reply and not sent"));
        }
    }
}

struct FoundEntry {
    name: CString,
    is_directory: bool,
}

impl FoundEntry {
    /// A directory sorts as its name with a slash, which is where its paths are.
    fn key(&self) -> impl Iterator<Item = &u8> {
        let slash: &[u8] = if self.is_directory { b"/" } else { b"" };
        self.name.to_bytes().iter().chain(slash)
    }
}

impl<S: FnMut(Bytes) -> Result<(), RequestOver>> Listing<S> {
    fn new(limit: usize, send: S) -> Self {
        Self {
            send,
            json: HEAD.to_vec(),
            sent: 0,
            last_sent: Instant::now(),
            limit,
            any: false,
            omissions: Omissions::default(),
            may_read_all: rustix::process::geteuid().is_root(),
        }
    }

    /// Walks, and sends a reply of at most `limit` bytes except its last part, which is returned.
    /// With `hold`, the first part is sent only when it is full or late.
    fn walk_all(
        path: &Path,
        limit: usize,
        hold: bool,
        send: S,
    ) -> Result<(Bytes, Omissions), RequestOver> {
        let mut listing = Self::new(limit, send);
        // Without doubled slashes and single dots.
        let path: PathBuf = path.components().collect();
        let status = rustix::fs::stat(&path);
        let (Some(text), Ok(status)) = (path.to_str(), status) else {
            return Ok((Bytes::from_static(NOT_FOUND), listing.omissions));
        };
        if !hold {
            listing.flush()?;
        }
        match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => {
                let name = CString::new(text).unwrap_or_default();
                if listing.is_readable(CWD, &name) {
                    listing.add(text)?;
                }
            }
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                if let Ok(directory) = rustix::fs::open(&path, flags, Mode::empty()) {
                    in_memory::remember(&directory, status.st_dev);
                    let prefix = text.trim_end_matches('/').to_owned();
                    listing.walk(&directory, prefix, &mut Vec::new())?;
                }
            }
            _ => {}
        }
        if !listing.omissions.rest {
            listing.json.extend(TAIL);
        }
        Ok((listing.json.into(), listing.omissions))
    }

    fn walk(
        &mut self,
        directory: &OwnedFd,
        mut path: String,
        above: &mut Vec<(u64, u64)>,
    ) -> Result<(), RequestOver> {
        let Ok(status) = rustix::fs::fstat(directory) else { return Ok(()) };
        let identity = (status.st_dev, status.st_ino);
        if above.len() >= MAX_DEPTH || above.contains(&identity) {
            return Ok(());
        }
        above.push(identity);
        let length = path.len();
        for entry in entries(directory, usize::MAX).unwrap_or_default() {
            if self.omissions.rest {
                break;
            }
            if !self.entry(directory, &entry, &mut path, length)? {
                continue;
            }
            if entry.is_directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(child) = rustix::fs::openat(directory, &entry.name, flags, Mode::empty())
                {
                    self.walk(&child, path.clone(), above)?;
                }
            }
        }
        above.pop();
        self.send_progress()
    }

    /// Adds an entry if it is a file that can be read. Sets `path` to its path: the first `length`
    /// bytes and its name. `false` if the name is not UTF-8.
    fn entry(
        &mut self,
        directory: &OwnedFd,
        entry: &FoundEntry,
        path: &mut String,
        length: usize,
    ) -> Result<bool, RequestOver> {
        let Ok(name) = entry.name.to_str() else {
            self.omissions.names += 1;
            return Ok(false);
        };
        path.truncate(length);
        path.push('/');
        path.push_str(name);
        if !entry.is_directory && self.is_readable(directory.as_fd(), &entry.name) {
            self.add(path)?;
        }
        Ok(true)
    }

    fn is_readable(&self, directory: impl AsFd, name: &CStr) -> bool {
        self.may_read_all
            || rustix::fs::accessat(directory, name, Access::READ_OK, AtFlags::EACCESS).is_ok()
    }

    fn add(&mut self, path: &str) -> Result<(), RequestOver> {
        let before = self.json.len();
        if self.any {
            self.json.push(b',');
        }
        if serde_json::to_writer(&mut self.json, path).is_err() {
            self.json.truncate(before);
            self.omissions.rest = true;
            return Ok(());
        }
        if self.sent + self.json.len() + TAIL.len() > self.limit {
            // Longer than the limit, so that the host does not take a part for the whole list.
            let missing = (self.limit + 1).saturating_sub(self.sent + self.json.len());
            self.json.resize(self.json.len() + missing, b' ');
            self.omissions.rest = true;
            return Ok(());
        }
        self.any = true;
        if self.json.len() >= PART {
            self.flush()?;
        }
        self.send_progress()
    }

    /// Sends at least a space if nothing was sent for [`PROGRESS_INTERVAL`].
    fn send_progress(&mut self) -> Result<(), RequestOver> {
        if self.last_sent.elapsed() < PROGRESS_INTERVAL {
            return Ok(());
        }
        let room = self.sent + self.json.len() + TAIL.len() < self.limit;
        if self.json.is_empty() && room {
            self.json.push(b' ');
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), RequestOver> {
        self.last_sent = Instant::now();
        self.sent += self.json.len();
        let part = std::mem::take(&mut self.json);
        if part.is_empty() { Ok(()) } else { (self.send)(part.into()) }
    }
}

/// The plain files and subdirectories of a directory, sorted by the paths they lead to. `None` if
/// there are more than `limit` names.
fn entries(directory: &OwnedFd, limit: usize) -> Option<Vec<FoundEntry>> {
    let mut entries = Vec::new();
    let Ok(mut names) = Dir::read_from(directory) else { return Some(entries) };
    let mut left = limit;
    while let Some(entry) = names.read() {
        left = left.checked_sub(1)?;
        // A directory on a broken disk is listed as far as it can be read.
        let Ok(entry) = entry else { break };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => kind_of(directory, name),
            kind => kind,
        };
        if matches!(kind, FileType::RegularFile | FileType::Directory) {
            let is_directory = kind == FileType::Directory;
            entries.push(FoundEntry { name: name.to_owned(), is_directory });
        }
    }
    entries.sort_by(|a, b| a.key().cmp(b.key()));
    Some(entries)
}

fn kind_of(directory: &OwnedFd, name: &CStr) -> FileType {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => FileType::from_raw_mode(status.st_mode),
        Err(_) => FileType::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use metaservice_protocol::Files;
    use proptest::prelude::*;

    use super::*;

    struct Listed {
        files: Files,
        length: usize,
        unnamed: u64,
        full: bool,
    }

    fn list(path: &Path, limit: usize) -> Listed {
        let mut json = Vec::new();
        let listing = Listing::walk_all(path, limit, limit.is_multiple_of(2), |part| {
            json.extend(part);
            Ok(())
        });
        let Ok((rest, Omissions { names: unnamed, rest: full })) = listing else { unreachable!() };
        json.extend(rest);
        let length = json.len();
        if full {
            // Too long for a host, and not valid JSON.
            assert!(length > limit && serde_json::from_slice::<Files>(&json).is_err());
            return Listed { files: Files::default(), length, unnamed, full };
        }
        assert!(length <= limit.max(NOT_FOUND.len()));
        Listed { files: serde_json::from_slice(&json).unwrap(), length, unnamed, full }
    }

    /// As [`list`], for a directory in memory that was listed before.
    fn list_at_once(path: &Path) -> Option<Files> {
        let (json, omitted) = at_once(path)?;
        assert!(!omitted.rest);
        Some(serde_json::from_slice(&json).unwrap())
    }

    #[test]
    fn a_small_directory_in_memory_is_listed_at_once_with_the_same_result() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let file = |name: &str| fs::write(directory.path().join(name), b"").unwrap();
        ["b", "a", "c d"].into_iter().for_each(file);
        let walked = files(&directory.path().join("."));
        assert_eq!(walked.files.as_ref().unwrap().len(), 3);
        assert_eq!(list_at_once(&directory.path().join(".")), Some(walked));
        (0..MAX_AT_ONCE).for_each(|n| file(&n.to_string()));
        assert_eq!(list_at_once(directory.path()), None);
        let above = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::create_dir(above.path().join("below")).unwrap();
        assert_eq!(list_at_once(above.path()), None);
    }

    fn files(path: &Path) -> Files {
        list(path, MAX_FILES_BYTES).files
    }

    #[test]
    fn all_kinds_of_entries_of_a_tree() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in ["b", "a/b", "a-b", "a/c/d", "\u{e9} \"x\""] {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let unnamed = std::os::unix::ffi::OsStrExt::from_bytes(b"not-\xff-utf8");
        fs::write(root.join::<&std::ffi::OsStr>(unnamed), b"").unwrap();
        std::os::unix::fs::symlink(root, root.join("a/loop")).unwrap();
        std::os::unix::fs::symlink(root.join("b"), root.join("link")).unwrap();
        rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();

        let listed = list(&root.join(".//"), MAX_FILES_BYTES);
        let names = listed.files.files.unwrap();
        let expected = ["a-b", "a/b", "a/c/d", "b", "\u{e9} \"x\""];
        assert_eq!(names, expected.map(|name| format!("{}/{name}", root.display())));
        assert!(names.is_sorted());
        assert_eq!((listed.unnamed, listed.full, listed.files.not_found), (1, false, false));

        let alone = |name: &str| files(&root.join(name)).files.unwrap();
        assert_eq!(alone("link"), [root.join("link").to_str().unwrap()]);
        assert_eq!(files(&root.join("none")), Files { files: None, not_found: true });
        assert_eq!(files(&root.join("fifo")), Files { files: Some(vec![]), not_found: false });
        assert!(files(&root.join("b/c")).not_found);
    }

    #[test]
    fn a_list_that_does_not_fit_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        (0..20).for_each(|n| fs::write(directory.path().join(format!("{n:02}")), b"").unwrap());
        let all = list(directory.path(), MAX_FILES_BYTES);
        assert!(!list(directory.path(), all.length).full);
        for limit in [all.length - 1, all.length - 40, 100] {
            assert!(list(directory.path(), limit).full, "{limit}");
        }
    }

    #[test]
    fn a_reply_that_is_over_ends_the_walk() {
        let listing =
            Listing::walk_all(Path::new("/usr"), MAX_FILES_BYTES, false, |_| Err(RequestOver));
        assert!(listing.is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn names_are_sorted(names in proptest::collection::btree_set("[a./-]{1,5}", 0..12)) {
            let directory = tempfile::tempdir().unwrap();
            for name in names {
                let path = directory.path().join(format!("x{name}"));
                let _ = path.parent().map(fs::create_dir_all);
                let _ = fs::write(path, b"");
            }
            let files = files(directory.path()).files.unwrap();
            prop_assert!(files.is_sorted(), "{files:?}");
        }
    }
}
