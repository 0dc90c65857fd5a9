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
//! | more paths than 10 MiB of JSON | as many as fit, in order, with a warning |
//!
//! Paths come sorted by their bytes. A link is followed where the host itself named it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bytes::Bytes;
use metaservice_protocol::ActionId;
use metaservice_protocol::limits::MAX_FILES_BYTES;
use rustix::fs::{Access, AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::body::Body;
use crate::client::{Client, ClientError, ReplyKind};
use crate::words::say;

/// How deep the walk goes; each level keeps a file open.
const MAX_DEPTH: usize = 256;

const HEAD: &[u8] = br#"{"files":["#;
const TAIL: &[u8] = br#"],"notFound":false}"#;
const NOT_FOUND: &[u8] = br#"{"files":null,"notFound":true}"#;

/// Answers a list-folder action. Dropping the future cuts the reply; a walk under way ends
/// by itself.
pub(crate) async fn serve(client: &Client, id: &ActionId, path: &Path) -> Result<(), ClientError> {
    let owned = path.to_owned();
    let listing = tokio::task::spawn_blocking(move || Listing::of(&owned, MAX_FILES_BYTES)).await;
    let listing = listing.unwrap_or_default();
    if listing.unnamed > 0 {
        let count = listing.unnamed;
        say(&format!("{count} names below {} are not UTF-8 and left out", path.display()));
    }
    if listing.full {
        say(&format!("more files are below {} than a reply can carry", path.display()));
    }
    client.reply(id, ReplyKind::Json, Body::Whole(listing.into_json())).await
}

/// The files that were found, as JSON in the making.
#[derive(Debug, Default)]
struct Listing {
    json: Vec<u8>,
    limit: usize,
    found: bool,
    full: bool,
    unnamed: u64,
    may_read_all: bool,
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

impl Listing {
    fn of(path: &Path, limit: usize) -> Self {
        let may_read_all = rustix::process::geteuid().is_root();
        let mut listing = Self { limit, may_read_all, ..Self::default() };
        // No doubled slashes and single dots in what is reported.
        let path: std::path::PathBuf = path.components().collect();
        let Some(text) = path.to_str() else { return listing };
        let Ok(status) = rustix::fs::stat(&path) else { return listing };
        listing.found = true;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => {
                let name = CString::new(text).unwrap_or_default();
                if listing.is_readable(CWD, &name) {
                    listing.add(text);
                }
            }
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                if let Ok(folder) = rustix::fs::open(&path, flags, Mode::empty()) {
                    let prefix = text.trim_end_matches('/').to_owned();
                    listing.walk(&folder, prefix, &mut Vec::new());
                }
            }
            _ => {}
        }
        listing
    }

    fn walk(&mut self, folder: &OwnedFd, path: String, above: &mut Vec<(u64, u64)>) {
        let Ok(status) = rustix::fs::fstat(folder) else { return };
        let identity = (status.st_dev, status.st_ino);
        if above.len() >= MAX_DEPTH || above.contains(&identity) {
            return;
        }
        above.push(identity);
        let mut path = path;
        let length = path.len();
        for entry in self.entries(folder) {
            if self.full {
                break;
            }
            let Ok(name) = entry.name.to_str() else {
                self.unnamed += 1;
                continue;
            };
            path.truncate(length);
            path.push('/');
            path.push_str(name);
            if entry.folder {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(child) = rustix::fs::openat(folder, &entry.name, flags, Mode::empty()) {
                    self.walk(&child, path.clone(), above);
                }
            } else if self.is_readable(folder.as_fd(), &entry.name) {
                self.add(&path);
            }
        }
        above.pop();
    }

    /// The plain files and folders in a folder, in the order of the paths they lead to: a
    /// folder sorts as its name with a slash.
    fn entries(&self, folder: &OwnedFd) -> Vec<Entry> {
        let mut entries = Vec::new();
        let Ok(mut names) = Dir::read_from(folder) else { return entries };
        while let Some(entry) = names.read() {
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
        entries
    }

    fn is_readable(&self, folder: impl AsFd, name: &CStr) -> bool {
        self.may_read_all
            || rustix::fs::accessat(folder, name, Access::READ_OK, AtFlags::EACCESS).is_ok()
    }

    fn add(&mut self, path: &str) {
        let before = self.json.len();
        if before > 0 {
            self.json.push(b',');
        }
        let written = serde_json::to_writer(&mut self.json, path).is_ok();
        if !written || HEAD.len() + self.json.len() + TAIL.len() > self.limit {
            self.json.truncate(before);
            self.full = true;
        }
    }

    fn into_json(self) -> Bytes {
        if !self.found {
            return Bytes::from_static(NOT_FOUND);
        }
        [HEAD, &self.json, TAIL].concat().into()
    }
}

fn kind_of(folder: &OwnedFd, name: &CStr) -> FileType {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => FileType::from_raw_mode(status.st_mode),
        Err(Errno::NOENT | _) => FileType::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use metaservice_protocol::Files;
    use proptest::prelude::*;

    use super::*;

    fn list(path: &Path, limit: usize) -> (Files, Listing) {
        let listing = Listing::of(path, limit);
        let copy = Listing {
            json: listing.json.clone(),
            ..Listing { found: listing.found, ..Listing::default() }
        };
        let json = copy.into_json();
        assert!(json.len() <= limit.max(NOT_FOUND.len()));
        (serde_json::from_slice(&json).unwrap(), listing)
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

        let (files, listing) = list(&root.join(".//"), MAX_FILES_BYTES);
        let names = files.files.unwrap();
        let expected = ["a-b", "a/b", "a/c/d", "b", "\u{e9} \"x\""];
        assert_eq!(names, expected.map(|name| format!("{}/{name}", root.display())));
        assert!(names.is_sorted());
        assert_eq!((listing.unnamed, listing.full, files.not_found), (1, false, false));

        let (files, _) = list(&root.join("link"), MAX_FILES_BYTES);
        assert_eq!(files.files.unwrap(), [root.join("link").to_str().unwrap()]);
        let (files, _) = list(&root.join("none"), MAX_FILES_BYTES);
        assert_eq!(files, Files { files: None, not_found: true });
        let (files, _) = list(&root.join("fifo"), MAX_FILES_BYTES);
        assert_eq!(files, Files { files: Some(vec![]), not_found: false });
        assert!(list(&root.join("b/c"), MAX_FILES_BYTES).0.not_found);
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_end() {
        let folder = tempfile::tempdir().unwrap();
        (0..20).for_each(|n| fs::write(folder.path().join(format!("{n:02}")), b"").unwrap());
        let (all, listing) = list(folder.path(), MAX_FILES_BYTES);
        let all = all.files.unwrap();
        let exact = HEAD.len() + listing.json.len() + TAIL.len();
        assert!(!list(folder.path(), exact).1.full);
        let (some, listing) = list(folder.path(), exact - 1);
        assert!(listing.full);
        assert_eq!(some.files.unwrap(), all[..19]);
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
            let files = list(folder.path(), MAX_FILES_BYTES).0.files.unwrap();
            prop_assert!(files.is_sorted(), "{files:?}");
        }
    }
}
