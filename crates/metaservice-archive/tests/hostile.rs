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
fn an_archive_has_one_end_and_nothing_behind_it() {
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, EntryType::Regular, "file", "", b"some");
    let archive = archive.into_inner().unwrap();
    let ground = Ground::new();
    ground.extract(&[&archive[..], &[0; 20_000]].concat()).unwrap();
    for (behind, at) in [(&b"x"[..], 0), (b"x", 20_000), (&archive, 0)] {
        let all = [&archive[..], &vec![0; at], behind].concat();
        let error = ground.extract(&all).unwrap_err();
        assert!(matches!(error.reason, Reason::Behind), "{error}");
    }
    // Between two members, or before the first.
    for end in [0, 1024] {
        let error = ground.extract(&archive[..end]).unwrap_err();
        assert!(matches!(error.reason, Reason::Unended), "{end}: {error}");
    }
}

#[test]
fn a_sticky_bit_stays_and_a_hole_takes_no_room() {
    let ground = Ground::new();
    let mut archive = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_path("d/").unwrap();
    header.set_mode(0o7777);
    header.set_mtime(0);
    header.set_size(0);
    header.set_cksum();
    archive.append(&header, &b""[..]).unwrap();
    add(&mut archive, EntryType::Regular, "d/f", "", &vec![0; 8 << 20]);
    let counts = ground.extract(&archive.into_inner().unwrap()).unwrap();
    assert_eq!(counts.bytes, 8 << 20);
    let found = |name: &str| fs::metadata(ground.path(name)).unwrap();
    assert_eq!(found("in/d").mode() & 0o7777, 0o1777);
    assert_eq!(found("in/d/f").len(), 8 << 20);
    assert!(found("in/d/f").blocks() * 512 < 1 << 20, "{} blocks", found("in/d/f").blocks());
}

#[test]
fn folders_get_their_times_last() {
    let ground = Ground::new();
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, EntryType::Directory, "./", "", b"");
    add(&mut archive, EntryType::Directory, "a/", "", b"");
    add(&mut archive, EntryType::Regular, "a/b", "", b"b");
    let options = Options { new: true, ..Options::default() };
    let extractor = Extractor::open(&ground.path("in"), options).unwrap();
    let counts = extractor.extract(&archive.into_inner().unwrap()[..]).unwrap();
    assert_eq!(counts, Counts { files: 1, folders: 2, bytes: 1, ..Counts::default() });
    for name in ["in", "in/a", "in/a/b"] {
        assert_eq!(fs::metadata(ground.path(name)).unwrap().mtime(), 1_000_000, "{name}");
    }
}

#[test]
fn folders_that_the_archive_does_not_name_are_like_those_of_mkdir() {
    let ground = Ground::new();
    ground.extract(&one(EntryType::Regular, "a/b/c", "")).unwrap();
    fs::create_dir(ground.path("in/usual")).unwrap();
    let usual = fs::metadata(ground.path("in/usual")).unwrap().mode();
    for name in ["in/a", "in/a/b"] {
        assert_eq!(fs::metadata(ground.path(name)).unwrap().mode(), usual, "{name}");
    }
}

#[test]
fn special_bits_are_kept_only_where_that_is_asked_for() {
    for (keep_set_id, mode) in [(false, 0o755), (true, 0o4755)] {
        let ground = Ground::new();
        let options = Options { keep_set_id, ..Options::default() };
        let extractor = Extractor::open(&ground.path("in"), options).unwrap();
        extractor.extract(&one(EntryType::Regular, "f", "")[..]).unwrap();
        assert_eq!(fs::metadata(ground.path("in/f")).unwrap().mode() & 0o7777, mode);
    }
}

#[test]
fn the_last_of_two_members_of_a_name_counts() {
    let ground = Ground::new();
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, EntryType::Regular, "f", "", b"first");
    add(&mut archive, EntryType::Symlink, "f", "../out/kept", b"");
    add(&mut archive, EntryType::Regular, "f", "", b"last");
    ground.extract(&archive.into_inner().unwrap()).unwrap();
    assert_eq!(fs::read(ground.path("in/f")).unwrap(), b"last");
    // A folder is not replaced by a file, nor a file by a folder.
    for kinds in
        [[EntryType::Directory, EntryType::Regular], [EntryType::Regular, EntryType::Directory]]
    {
        let ground = Ground::new();
        let mut archive = Builder::new(Vec::new());
        for kind in kinds {
            add(&mut archive, kind, "f", "", b"");
        }
        let error = ground.extract(&archive.into_inner().unwrap()).unwrap_err();
        assert!(matches!(error.reason, Reason::System(_)), "{error}");
        assert_eq!(fs::read_dir(ground.path("in")).unwrap().count(), 1, "a temporary file stays");
    }
}

/// A member of this extended header, then one of this name.
fn pax(records: &[(&str, &[u8])], name: &str) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    archive.append_pax_extensions(records.iter().copied()).unwrap();
    add(&mut archive, EntryType::Regular, name, "", b"content");
    archive.into_inner().unwrap()
}

#[test]
fn names_of_extended_headers_are_checked_like_others() {
    let long = "n".repeat(200);
    let deep = "d/".repeat(257) + "f";
    let wide = "w".repeat(4097);
    let allowed: [&[u8]; 2] = [long.as_bytes(), b"not \xff utf-8"];
    for name in allowed {
        use std::os::unix::ffi::OsStrExt;
        let ground = Ground::new();
        ground.extract(&pax(&[("path", name)], "short")).unwrap();
        let place = ground.path("in").join(std::ffi::OsStr::from_bytes(name));
        assert_eq!(fs::read(place).unwrap(), b"content");
    }
    for name in [&b"../out/kept"[..], b"/out", b"a\0b", b"", deep.as_bytes(), wide.as_bytes()] {
        let error = Ground::new().extract(&pax(&[("path", name)], "short")).unwrap_err();
        assert!(matches!(error.reason, Reason::Name), "{error}");
    }
    let error = Ground::new().extract(&pax(&[("path", &[b'x'; 256])], "f")).unwrap_err();
    assert!(matches!(error.reason, Reason::System(_)), "a component is too long: {error}");
}

#[test]
fn times_have_nanoseconds_and_a_sign() {
    let times: [(&str, i64, i64); 4] = [
        ("1700000000.123456789", 1_700_000_000, 123_456_789),
        ("1700000000.5", 1_700_000_000, 500_000_000),
        ("-1.25", -2, 750_000_000),
        ("7.1234567899999", 7, 123_456_789),
    ];
    for (said, seconds, nanos) in times {
        let ground = Ground::new();
        ground.extract(&pax(&[("mtime", said.as_bytes())], "f")).unwrap();
        let found = fs::metadata(ground.path("in/f")).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (seconds, nanos), "{said}");
    }
    for said in ["", "soon", "1.x", "99999999999999999999"] {
        let error = Ground::new().extract(&pax(&[("mtime", said.as_bytes())], "f")).unwrap_err();
        assert!(matches!(error.reason, Reason::Corrupt), "{said}: {error}");
    }
}

#[test]
fn extended_headers_cannot_fill_the_memory_or_lie_about_a_size() {
    let large = vec![b'x'; 70_000];
    let error = Ground::new().extract(&pax(&[("comment", &large)], "f")).unwrap_err();
    assert!(matches!(error.reason, Reason::Limit), "{error}");
    let error = Ground::new().extract(&pax(&[("size", b"5")], "f")).unwrap_err();
    assert!(matches!(error.reason, Reason::Corrupt), "{error}");
    let error = Ground::new().extract(&pax(&[("GNU.sparse.major", b"1")], "f")).unwrap_err();
    assert!(matches!(error.reason, Reason::Kind), "{error}");
}

#[test]
fn limits_hold_at_the_bound_and_one_past_it() {
    use metaservice_archive::Limits;
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, EntryType::Directory, "abcd/", "", b"");
    add(&mut archive, EntryType::Regular, "f", "", b"12345");
    let archive = archive.into_inner().unwrap();
    let at = Limits { members: 2, bytes: 5, folder_names: 4 };
    let past =
        [Limits { members: 1, ..at }, Limits { bytes: 4, ..at }, Limits { folder_names: 3, ..at }];
    for (limits, allowed) in [(at, true)].into_iter().chain(past.map(|limits| (limits, false))) {
        let ground = Ground::new();
        let options = Options { limits, ..Options::default() };
        let extracted = Extractor::open(&ground.path("in"), options).unwrap().extract(&archive[..]);
        match extracted {
            Ok(_) => assert!(allowed, "{limits:?}"),
            Err(error) => assert!(!allowed && matches!(error.reason, Reason::Limit), "{error}"),
        }
    }
}

#[test]
fn a_folder_that_was_there_keeps_its_attributes() {
    use std::os::unix::fs::PermissionsExt;
    let mut archive = Builder::new(Vec::new());
    for name in ["./", "old/", "made/"] {
        add(&mut archive, EntryType::Directory, name, "", b"");
    }
    let archive = archive.into_inner().unwrap();
    let ground = Ground::new();
    fs::create_dir(ground.path("in/old")).unwrap();
    for name in ["in", "in/old"] {
        fs::set_permissions(ground.path(name), fs::Permissions::from_mode(0o711)).unwrap();
    }
    ground.extract(&archive).unwrap();
    let mode = |name| fs::metadata(ground.path(name)).unwrap().mode() & 0o7777;
    assert_eq!([mode("in"), mode("in/old"), mode("in/made")], [0o711, 0o711, 0o755]);
    assert_eq!(fs::metadata(ground.path("in/made")).unwrap().mtime(), 1_000_000);
}

mod any {
    use super::{Builder, EntryType, Ground, add};
    use proptest::prelude::*;

    fn kind() -> impl Strategy<Value = EntryType> {
        use EntryType::{Char, Directory, Link, Regular, Symlink};
        prop::sample::select(vec![Regular, Regular, Directory, Symlink, Symlink, Link, Char])
    }

    fn name() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec!["a", "b", "..", ".", "", "out", "in", "kept"]);
        prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        /// Whatever members come one after the other, what is outside stays as it was.
        #[test]
        fn archive_stays_below(members in prop::collection::vec((kind(), name(), name()), 1..12)) {
            // Where a member is refused, the rest is tried as an archive of its own.
            let ground = Ground::new();
            for (kind, name, link) in members {
                let mut archive = Builder::new(Vec::new());
                let content: &[u8] = if kind == EntryType::Regular { b"changed" } else { b"" };
                add(&mut archive, kind, &name, &link, content);
                let _ = ground.extract(&archive.into_inner().unwrap());
            }
        }
    }
}
