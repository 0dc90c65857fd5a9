//! Hostile archives touch nothing outside the destination.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use metaservice_archive::{Counts, Error, Extractor, Options, Reason};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

struct Ground {
    all: TempDir,
}

impl Ground {
    /// A destination `in` beside a folder `out` with one file.
    fn new() -> Self {
        let all = tempfile::tempdir().unwrap();
        fs::create_dir(all.path().join("in")).unwrap();
        fs::create_dir(all.path().join("out")).unwrap();
        fs::write(all.path().join("out/kept"), "kept").unwrap();
        Self { all }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.all.path().join(name)
    }

    fn extract(&self, archive: &[u8]) -> Result<Counts, Error> {
        let result =
            Extractor::open(&self.path("in"), Options::default()).unwrap().extract(archive);
        assert_eq!(fs::read(self.path("out/kept")).unwrap(), b"kept");
        assert_eq!(fs::metadata(self.path("out/kept")).unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(self.path("out")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(self.all.path()).unwrap().count(), 2);
        result
    }
}

fn add(archive: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, link: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_mtime(1_000_000);
    header.set_size(content.len() as u64);
    header.set_cksum();
    archive.append(&header, content).unwrap();
}

fn one(kind: EntryType, name: &str, link: &str) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, kind, name, link, b"");
    archive.into_inner().unwrap()
}

#[test]
fn names_stay_below() {
    let ground = Ground::new();
    for name in ["../out/kept", "/out/kept", "a/../../out/kept", "..", "."] {
        let error = ground.extract(&one(EntryType::Regular, name, "")).unwrap_err();
        assert!(matches!(error.reason, Reason::Name), "{name}: {error}");
    }
}

#[test]
fn nothing_goes_through_a_link() {
    for already_there in [true, false] {
        let ground = Ground::new();
        let mut archive = Builder::new(Vec::new());
        if already_there {
            symlink("../out", ground.path("in/door")).unwrap();
        } else {
            add(&mut archive, EntryType::Symlink, "door", "../out", b"");
        }
        add(&mut archive, EntryType::Regular, "door/kept", "", b"changed");
        let error = ground.extract(&archive.into_inner().unwrap()).unwrap_err();
        assert!(matches!(error.reason, Reason::System(_)), "{error}");
    }
}

#[test]
fn a_file_replaces_a_link_itself() {
    let ground = Ground::new();
    symlink("../out/kept", ground.path("in/file")).unwrap();
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, EntryType::Regular, "file", "", b"new");
    ground.extract(&archive.into_inner().unwrap()).unwrap();
    let found = fs::symlink_metadata(ground.path("in/file")).unwrap();
    assert!(found.is_file());
    assert_eq!((found.mode() & 0o7777, found.mtime()), (0o755, 1_000_000));
}

#[test]
fn hard_links_stay_below() {
    let ground = Ground::new();
    symlink("../out", ground.path("in/door")).unwrap();
    for target in ["../out/kept", "door/kept"] {
        ground.extract(&one(EntryType::Link, "mine", target)).unwrap_err();
    }
    fs::write(ground.path("in/own"), "own").unwrap();
    ground.extract(&one(EntryType::Link, "mine", "own")).unwrap();
    assert_eq!(fs::read(ground.path("in/mine")).unwrap(), b"own");
}

#[test]
fn devices_are_refused() {
    let ground = Ground::new();
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::GNUSparse] {
        let error = ground.extract(&one(kind, "it", "")).unwrap_err();
        assert!(matches!(error.reason, Reason::Kind), "{error}");
    }
}

#[test]
fn a_cut_leaves_nothing() {
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, EntryType::Regular, "file", "", &[7; 5000]);
    let archive = archive.into_inner().unwrap();
    for end in [1, 511, 513, 1024, 5000] {
        let ground = Ground::new();
        ground.extract(&archive[..end]).unwrap_err();
        assert_eq!(fs::read_dir(ground.path("in")).unwrap().count(), 0, "cut at {end}");
    }
}

#[test]
fn folders_get_their_times_last() {
    let ground = Ground::new();
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, EntryType::Directory, "./", "", b"");
    add(&mut archive, EntryType::Directory, "a/", "", b"");
    add(&mut archive, EntryType::Regular, "a/b", "", b"b");
    let counts = ground.extract(&archive.into_inner().unwrap()).unwrap();
    assert_eq!(counts, Counts { files: 1, folders: 2, links: 0, bytes: 1 });
    for name in ["in", "in/a", "in/a/b"] {
        assert_eq!(fs::metadata(ground.path(name)).unwrap().mtime(), 1_000_000, "{name}");
    }
}
