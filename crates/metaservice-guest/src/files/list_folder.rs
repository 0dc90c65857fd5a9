//! list-folder: every plain file below a folder.
//!
//! Owns the walk and the bound on its answer. It goes down by folder descriptors and never
//! through a link, so what is renamed meanwhile cannot lead it elsewhere, and the only
//! loops there can be are folders mounted into themselves; those are known by device and inode.
//!
//! | what | outcome |
//! | --- | --- |
//! | nothing at the path | `notFound` |
//! | a plain file at the path | that file alone |
//! | a folder that cannot be read | no files |
//! | links, devices, sockets, FIFOs; files and folders that cannot be read | left out |
//! | names that are not UTF-8 | left out with a warning: JSON cannot carry them |
//! | more paths than 10 MiB of JSON | a reply that is longer than that and has no end, which the host refuses; a warning |
//!
//! Paths come sorted by their bytes. A link is followed where the host itself named it.
//!
//! The reply is sent while the walk goes on. A host waits for a reply to start and then for it
//! to move, so a large tree on a slow disk is no reason to give up; where nothing is found for
//! a while, a space moves instead. A reply that the host has given up ends the walk.

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
use crate::client::{Client, ClientError, ReplyBody};
use crate::diagnostics::say;

/// How deep the walk goes; each level keeps a file open.
const MAX_DEPTH: usize = 256;

/// How many walks go on at once.
const MAX_WALKS: usize = 8;

/// How much of the reply is sent at once.
const PART: usize = 64 * 1024;

/// How many entries a folder may have to be looked at without a thread.
const AT_ONCE: usize = 128;

/// How long a listing may be held back to go out in one piece.
const HELD_FOR: Duration = Duration::from_secs(1);

/// How long a walk may find nothing before it moves the reply all the same.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

const HEAD: &[u8] = br#"{"files":["#;
const TAIL: &[u8] = br#"],"notFound":false}"#;
const NOT_FOUND: &[u8] = br#"{"files":null,"notFound":true}"#;

/// Answers a list-folder action. Dropping the future cuts the reply and ends the walk.
pub(crate) async fn serve(client: &Client, id: &ActionId, path: &Path) -> Result<(), ClientError> {
    // A host that gives up waiting for a walk that has not begun asks again.
    let _permit = WALKS.acquire().await;
    let (sender, body) = Body::stream(None);
    let path = path.to_owned();
    // One of version 1 sees the reply begin before the walk does.
    let hold = client.keeps_connections();
    if hold && let Some((whole, omitted)) = at_once(&path) {
        omitted.say(&path);
        return client.reply(id, ReplyBody::Json, Body::Whole(whole)).await;
    }
    let (begin, begun) = oneshot::channel::<()>();
    let mut walking = tokio::task::spawn_blocking(move || {
        let mut begin = Some(begin);
        let listing = Listing::of(&path, MAX_FILES_BYTES, hold, |part| {
            drop(begin.take());
            sender.send_blocking(part)
        });
        listing.map(|(rest, omitted)| {
            omitted.say(&path);
            (rest, sender)
        })
    });
    let soon = tokio::select! {
        biased;
        walked = &mut walking, if hold => Some(walked),
        _ = begun, if hold => None,
        () = sleep(HELD_FOR), if hold => None,
        else => None,
    };
    match soon {
        None => {}
        Some(Ok(Ok((rest, _sender)))) => {
            return client.reply(id, ReplyBody::Json, Body::Whole(rest)).await;
        }
        // Its sender is gone, by which the reply breaks.
        Some(_) => return client.reply(id, ReplyBody::Json, body).await,
    }
    let walk = async {
        // The walk ends early when the request is over, which has its own reason.
        let Ok(Ok((rest, sender))) = walking.await else { return };
        if sender.send(rest).await.is_ok() {
            let _ = sender.end().await;
        }
    };
    let (replied, ()) = tokio::join!(client.reply(id, ReplyBody::Json, body), walk);
    replied
}

/// The reply of a small folder that nobody has to be waited for.
fn at_once(path: &Path) -> Option<(Bytes, Omitted)> {
    let path: PathBuf = path.components().collect();
    let folder = in_memory::open(&path)?;
    let entries = entries(&folder, AT_ONCE).filter(|entries| entries.iter().all(|e| !e.folder))?;
    let mut listing = Listing::new(MAX_FILES_BYTES, |_| Err(RequestOver));
    let mut text = path.to_str()?.trim_end_matches('/').to_owned();
    let length = text.len();
    for entry in entries {
        listing.entry(&folder, &entry, &mut text, length).ok()?;
    }
    listing.json.extend(TAIL);
    Some((listing.json.into(), listing.omitted))
}

/// A walk holds one of the runtime's blocking threads, which artifacts need as well.
static WALKS: Semaphore = Semaphore::const_new(MAX_WALKS);

/// The files that were found, as JSON on its way out.
struct Listing<S> {
    send: S,
    json: Vec<u8>,
    sent: usize,
    last_sent: Instant,
    limit: usize,
    any: bool,
    omitted: Omitted,
    may_read_all: bool,
}

/// What a reply does not have.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Omitted {
    /// How many names are not UTF-8.
    names: u64,
    /// Whether there is more than fits.
    rest: bool,
}

impl Omitted {
    fn say(self, path: &Path) {
        if self.names > 0 {
            let count = self.names;
            say(&format!("{count} names below {} are not UTF-8 and left out", path.display()));
        }
        if self.rest {
            say(&format!(
                "more files are below {} than a reply can carry: the list is not sent",
                path.display()
            ));
        }
    }
}

struct Entry {
    name: CString,
    folder: bool,
}

impl Entry {
    fn key(&self) -> impl Iterator<Item = &u8> {
        let slash: &[u8] = if self.folder { b"/" } else { b"" };
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
            omitted: Omitted::default(),
            may_read_all: rustix::process::geteuid().is_root(),
        }
    }

    /// Sends a reply of at most `limit` bytes, part by part, up to its last part. With `hold` there
    /// is no first part before it is full or late.
    fn of(path: &Path, limit: usize, hold: bool, send: S) -> Result<(Bytes, Omitted), RequestOver> {
        let mut listing = Self::new(limit, send);
        // No doubled slashes and single dots in what is reported.
        let path: PathBuf = path.components().collect();
        let status = rustix::fs::stat(&path);
        let (Some(text), Ok(status)) = (path.to_str(), status) else {
            return Ok((Bytes::from_static(NOT_FOUND), listing.omitted));
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
                if let Ok(folder) = rustix::fs::open(&path, flags, Mode::empty()) {
                    in_memory::learn(&folder, status.st_dev);
                    let prefix = text.trim_end_matches('/').to_owned();
                    listing.walk(&folder, prefix, &mut Vec::new())?;
                }
            }
            _ => {}
        }
        if !listing.omitted.rest {
            listing.json.extend(TAIL);
        }
        Ok((listing.json.into(), listing.omitted))
    }

    fn walk(
        &mut self,
        folder: &OwnedFd,
        mut path: String,
        above: &mut Vec<(u64, u64)>,
    ) -> Result<(), RequestOver> {
        let Ok(status) = rustix::fs::fstat(folder) else { return Ok(()) };
        let identity = (status.st_dev, status.st_ino);
        if above.len() >= MAX_DEPTH || above.contains(&identity) {
            return Ok(());
        }
        above.push(identity);
        let length = path.len();
        for entry in entries(folder, usize::MAX).unwrap_or_default() {
            if self.omitted.rest {
                break;
            }
            if !self.entry(folder, &entry, &mut path, length)? {
                continue;
            }
            if entry.folder {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(child) = rustix::fs::openat(folder, &entry.name, flags, Mode::empty()) {
                    self.walk(&child, path.clone(), above)?;
                }
            }
        }
        above.pop();
        self.move_on()
    }

    /// Adds what is a file and can be read, and has `path` end with its name behind the first
    /// `length` bytes. `false` for a name that cannot be said.
    fn entry(
        &mut self,
        folder: &OwnedFd,
        entry: &Entry,
        path: &mut String,
        length: usize,
    ) -> Result<bool, RequestOver> {
        let Ok(name) = entry.name.to_str() else {
            self.omitted.names += 1;
            return Ok(false);
        };
        path.truncate(length);
        path.push('/');
        path.push_str(name);
        if !entry.folder && self.is_readable(folder.as_fd(), &entry.name) {
            self.add(path)?;
        }
        Ok(true)
    }

    fn is_readable(&self, folder: impl AsFd, name: &CStr) -> bool {
        self.may_read_all
            || rustix::fs::accessat(folder, name, Access::READ_OK, AtFlags::EACCESS).is_ok()
    }

    fn add(&mut self, path: &str) -> Result<(), RequestOver> {
        let before = self.json.len();
        if self.any {
            self.json.push(b',');
        }
        if serde_json::to_writer(&mut self.json, path).is_err() {
            self.json.truncate(before);
            self.omitted.rest = true;
            return Ok(());
        }
        if self.sent + self.json.len() + TAIL.len() > self.limit {
            // The host sees that there is more than a reply carries: a part of a list is none.
            let missing = (self.limit + 1).saturating_sub(self.sent + self.json.len());
            self.json.resize(self.json.len() + missing, b' ');
            self.omitted.rest = true;
            return Ok(());
        }
        self.any = true;
        if self.json.len() >= PART {
            self.flush()?;
        }
        self.move_on()
    }

    /// Lets the host see that the walk goes on.
    fn move_on(&mut self) -> Result<(), RequestOver> {
        if self.last_sent.elapsed() < SIGN_OF_LIFE {
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

/// The plain files and folders in a folder, in the order of the paths they lead to: a
/// folder sorts as its name with a slash. `None` when there are more names than `most`.
fn entries(folder: &OwnedFd, most: usize) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    let Ok(mut names) = Dir::read_from(folder) else { return Some(entries) };
    let mut left = most;
    while let Some(entry) = names.read() {
        left = left.checked_sub(1)?;
        // A folder on a broken disk is listed as far as it can be read.
        let Ok(entry) = entry else { break };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => kind_of(folder, name),
            kind => kind,
        };
        if matches!(kind, FileType::RegularFile | FileType::Directory) {
            let folder = kind == FileType::Directory;
            entries.push(Entry { name: name.to_owned(), folder });
        }
    }
    entries.sort_by(|a, b| a.key().cmp(b.key()));
    Some(entries)
}

fn kind_of(folder: &OwnedFd, name: &CStr) -> FileType {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
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
        let listing = Listing::of(path, limit, limit.is_multiple_of(2), |part| {
            json.extend(part);
            Ok(())
        });
        let Ok((rest, Omitted { names: unnamed, rest: full })) = listing else { unreachable!() };
        json.extend(rest);
        let length = json.len();
        if full {
            // Too long for a host, and no list for one that takes more.
            assert!(length > limit && serde_json::from_slice::<Files>(&json).is_err());
            return Listed { files: Files::default(), length, unnamed, full };
        }
        assert!(length <= limit.max(NOT_FOUND.len()));
        Listed { files: serde_json::from_slice(&json).unwrap(), length, unnamed, full }
    }

    /// As [`list`], of a folder in memory, which is learned by that.
    fn list_at_once(path: &Path) -> Option<Files> {
        let (json, omitted) = at_once(path)?;
        assert!(!omitted.rest);
        Some(serde_json::from_slice(&json).unwrap())
    }

    #[test]
    fn a_small_folder_in_memory_is_listed_at_once_and_the_same() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let file = |name: &str| fs::write(folder.path().join(name), b"").unwrap();
        ["b", "a", "c d"].into_iter().for_each(file);
        let walked = files(&folder.path().join("."));
        assert_eq!(walked.files.as_ref().unwrap().len(), 3);
        assert_eq!(list_at_once(&folder.path().join(".")), Some(walked));
        (0..AT_ONCE).for_each(|n| file(&n.to_string()));
        assert_eq!(list_at_once(folder.path()), None);
        let above = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::create_dir(above.path().join("below")).unwrap();
        assert_eq!(list_at_once(above.path()), None);
    }

    fn files(path: &Path) -> Files {
        list(path, MAX_FILES_BYTES).files
    }

    #[test]
    fn a_tree_with_all_that_can_be_in_one() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
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
    fn a_list_that_does_not_fit_is_none() {
        let folder = tempfile::tempdir().unwrap();
        (0..20).for_each(|n| fs::write(folder.path().join(format!("{n:02}")), b"").unwrap());
        let all = list(folder.path(), MAX_FILES_BYTES);
        assert!(!list(folder.path(), all.length).full);
        for limit in [all.length - 1, all.length - 40, 100] {
            assert!(list(folder.path(), limit).full, "{limit}");
        }
    }

    #[test]
    fn a_reply_that_is_over_ends_the_walk() {
        let listing = Listing::of(Path::new("/usr"), MAX_FILES_BYTES, false, |_| Err(RequestOver));
        assert!(listing.is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_names_come_sorted(names in proptest::collection::btree_set("[a./-]{1,5}", 0..12)) {
            let folder = tempfile::tempdir().unwrap();
            for name in names {
                let path = folder.path().join(format!("x{name}"));
                let _ = path.parent().map(fs::create_dir_all);
                let _ = fs::write(path, b"");
            }
            let files = files(folder.path()).files.unwrap();
            prop_assert!(files.is_sorted(), "{files:?}");
        }
    }
}
