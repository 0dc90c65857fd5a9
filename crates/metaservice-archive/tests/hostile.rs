//! Hostile archives touch nothing outside the destination.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use metaservice_archive::{
    ExtractCause, ExtractError, ExtractLimits, ExtractOptions, Extracted, Extractor,
};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

/// A destination `in` beside a directory `out` with one file. Each extraction checks that nothing
/// outside of `in` has changed.
struct Ground {
    all: TempDir,
}

impl Ground {
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

    fn extract(&self, archive: &[u8]) -> Result<Extracted, ExtractError> {
        self.extract_with(archive, ExtractOptions::default())
    }

    fn extract_with(
        &self,
        archive: &[u8],
        options: ExtractOptions,
    ) -> Result<Extracted, ExtractError> {
        let result = Extractor::open(&self.path("in"), options).unwrap().extract(archive);
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
fn a_name_cannot_lead_out_of_the_destination() {
    let ground = Ground::new();
    for name in ["../out/kept", "/out/kept", "a/../../out/kept", "..", "."] {
        let error = ground.extract(&one(EntryType::Regular, name, "")).unwrap_err();
        assert!(matches!(error.cause, ExtractCause::Name), "{name}: {error}");
    }
}

#[test]
fn no_member_is_written_through_a_link() {
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
        assert!(matches!(error.cause, ExtractCause::System(_)), "{error}");
    }
}

#[test]
fn a_file_replaces_a_link_and_not_its_target() {
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
fn a_hard_link_cannot_lead_out_of_the_destination() {
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
fn devices_and_sparse_files_are_refused() {
    let ground = Ground::new();
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::GNUSparse] {
        let error = ground.extract(&one(kind, "it", "")).unwrap_err();
        assert!(matches!(error.cause, ExtractCause::Kind), "{error}");
    }
}

#[test]
fn a_cut_leaves_no_incomplete_file() {
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, EntryType::Regular, "file", "", &[7; 5000]);
    let archive = archive.into_inner().unwrap();
    for end in [1, 511, 513, 1024, 5000] {
        let ground = Ground::new();
        ground.extract(&archive[..end]).unwrap_err();
        assert_eq!(fs::read_dir(ground.path("in")).unwrap().count(), 0, "cut at {end}");
    }
}

fn archive_of_one_file() -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, EntryType::Regular, "file", "", b"some");
    archive.into_inner().unwrap()
}

#[test]
fn zeros_may_follow_the_end() {
    let archive = archive_of_one_file();
    Ground::new().extract(&[&archive[..], &[0; 20_000]].concat()).unwrap();
}

#[test]
fn nothing_but_zeros_may_follow_the_end() {
    let archive = archive_of_one_file();
    for (more, zeros) in [(&b"x"[..], 0), (b"x", 20_000), (&archive, 0)] {
        let all = [&archive[..], &vec![0; zeros], more].concat();
        let error = Ground::new().extract(&all).unwrap_err();
        assert!(matches!(error.cause, ExtractCause::AfterEnd), "{error}");
    }
}

#[test]
fn an_archive_without_an_end_is_an_error() {
    let archive = archive_of_one_file();
    for (place, length) in [("before the first member", 0), ("after the last member", 1024)] {
        let error = Ground::new().extract(&archive[..length]).unwrap_err();
        assert!(matches!(error.cause, ExtractCause::Unended), "{place}: {error}");
    }
}

#[test]
fn a_sticky_bit_is_kept() {
    let mut archive = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_path("d/").unwrap();
    header.set_mode(0o7777);
    header.set_mtime(0);
    header.set_size(0);
    header.set_cksum();
    archive.append(&header, &b""[..]).unwrap();
    let ground = Ground::new();
    ground.extract(&archive.into_inner().unwrap()).unwrap();
    assert_eq!(fs::metadata(ground.path("in/d")).unwrap().mode() & 0o7777, 0o1777);
}

#[test]
fn a_file_of_zeros_uses_no_disk_space() {
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, EntryType::Regular, "f", "", &vec![0; 8 << 20]);
    let ground = Ground::new();
    let extracted = ground.extract(&archive.into_inner().unwrap()).unwrap();
    assert_eq!(extracted.bytes, 8 << 20);
    let found = fs::metadata(ground.path("in/f")).unwrap();
    assert_eq!(found.len(), 8 << 20);
    assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
}

#[test]
fn directories_get_their_times_at_the_end() {
    let ground = Ground::new();
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, EntryType::Directory, "./", "", b"");
    add(&mut archive, EntryType::Directory, "a/", "", b"");
    add(&mut archive, EntryType::Regular, "a/b", "", b"b");
    let mut options = ExtractOptions::default();
    options.new = true;
    let extracted = ground.extract_with(&archive.into_inner().unwrap(), options).unwrap();
    assert_eq!((extracted.files, extracted.directories, extracted.bytes), (1, 2, 1));
    for name in ["in", "in/a", "in/a/b"] {
        assert_eq!(fs::metadata(ground.path(name)).unwrap().mtime(), 1_000_000, "{name}");
    }
}

#[test]
fn directories_that_are_not_in_the_archive_are_made_as_by_mkdir() {
    let ground = Ground::new();
    ground.extract(&one(EntryType::Regular, "a/b/c", "")).unwrap();
    fs::create_dir(ground.path("in/usual")).unwrap();
    let usual = fs::metadata(ground.path("in/usual")).unwrap().mode();
    for name in ["in/a", "in/a/b"] {
        assert_eq!(fs::metadata(ground.path(name)).unwrap().mode(), usual, "{name}");
    }
}

#[test]
fn set_id_bits_are_kept_on_request_only() {
    for (keep_set_id, mode) in [(false, 0o755), (true, 0o4755)] {
        let ground = Ground::new();
        let mut options = ExtractOptions::default();
        options.keep_set_id = keep_set_id;
        ground.extract_with(&one(EntryType::Regular, "f", ""), options).unwrap();
        assert_eq!(fs::metadata(ground.path("in/f")).unwrap().mode() & 0o7777, mode);
    }
}

#[test]
fn the_last_member_of_a_name_wins() {
    let ground = Ground::new();
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, EntryType::Regular, "f", "", b"first");
    add(&mut archive, EntryType::Symlink, "f", "../out/kept", b"");
    add(&mut archive, EntryType::Regular, "f", "", b"last");
    ground.extract(&archive.into_inner().unwrap()).unwrap();
    assert_eq!(fs::read(ground.path("in/f")).unwrap(), b"last");
}

#[test]
fn a_directory_and_a_file_do_not_replace_each_other() {
    for kinds in
        [[EntryType::Directory, EntryType::Regular], [EntryType::Regular, EntryType::Directory]]
    {
        let ground = Ground::new();
        let mut archive = Builder::new(Vec::new());
        for kind in kinds {
            add(&mut archive, kind, "f", "", b"");
        }
        let error = ground.extract(&archive.into_inner().unwrap()).unwrap_err();
        assert!(matches!(error.cause, ExtractCause::System(_)), "{error}");
        assert_eq!(fs::read_dir(ground.path("in")).unwrap().count(), 1, "a temporary file stays");
    }
}

/// An archive with an extended header and a member of this name.
fn pax(records: &[(&str, &[u8])], name: &str) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    archive.append_pax_extensions(records.iter().copied()).unwrap();
    add(&mut archive, EntryType::Regular, name, "", b"content");
    archive.into_inner().unwrap()
}

#[test]
fn a_name_in_an_extended_header_can_be_long_and_of_any_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let long = "n".repeat(200);
    for name in [long.as_bytes(), b"not \xff utf-8"] {
        let ground = Ground::new();
        ground.extract(&pax(&[("path", name)], "short")).unwrap();
        let place = ground.path("in").join(std::ffi::OsStr::from_bytes(name));
        assert_eq!(fs::read(place).unwrap(), b"content");
    }
}

#[test]
fn a_name_in_an_extended_header_is_checked_like_others() {
    let deep = "d/".repeat(257) + "f";
    let wide = "w".repeat(4097);
    for name in [&b"../out/kept"[..], b"/out", b"a\0b", b"", deep.as_bytes(), wide.as_bytes()] {
        let error = Ground::new().extract(&pax(&[("path", name)], "short")).unwrap_err();
        assert!(matches!(error.cause, ExtractCause::Name), "{error}");
    }
}

#[test]
fn a_component_that_is_too_long_is_an_error_of_the_system() {
    let error = Ground::new().extract(&pax(&[("path", &[b'x'; 256])], "f")).unwrap_err();
    assert!(matches!(error.cause, ExtractCause::System(_)), "{error}");
}

#[test]
fn a_time_has_nanoseconds_and_a_sign() {
    let times: [(&str, i64, i64); 4] = [
        ("1700000000.123456789", 1_700_000_000, 123_456_789),
        ("1700000000.5", 1_700_000_000, 500_000_000),
        ("-1.25", -2, 750_000_000),
        ("7.1234567899999", 7, 123_456_789),
    ];
    for (text, seconds, nanos) in times {
        let ground = Ground::new();
        ground.extract(&pax(&[("mtime", text.as_bytes())], "f")).unwrap();
        let found = fs::metadata(ground.path("in/f")).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (seconds, nanos), "{text}");
    }
}

#[test]
fn an_invalid_time_is_an_error() {
    for text in ["", "soon", "1.x", "99999999999999999999"] {
        let error = Ground::new().extract(&pax(&[("mtime", text.as_bytes())], "f")).unwrap_err();
        assert!(matches!(error.cause, ExtractCause::Corrupt), "{text}: {error}");
    }
}

#[test]
fn an_extended_header_cannot_fill_the_memory() {
    let large = vec![b'x'; 70_000];
    let error = Ground::new().extract(&pax(&[("comment", &large)], "f")).unwrap_err();
    assert!(matches!(error.cause, ExtractCause::Limit), "{error}");
}

#[test]
fn an_extended_header_cannot_change_a_size() {
    let error = Ground::new().extract(&pax(&[("size", b"5")], "f")).unwrap_err();
    assert!(matches!(error.cause, ExtractCause::Corrupt), "{error}");
}

#[test]
fn a_sparse_file_in_an_extended_header_is_refused() {
    let error = Ground::new().extract(&pax(&[("GNU.sparse.major", b"1")], "f")).unwrap_err();
    assert!(matches!(error.cause, ExtractCause::Kind), "{error}");
}

#[test]
fn an_archive_at_its_limits_is_extracted_and_one_past_a_limit_is_refused() {
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, EntryType::Directory, "abcd/", "", b"");
    add(&mut archive, EntryType::Regular, "f", "", b"12345");
    let archive = archive.into_inner().unwrap();
    let extract = |lower: fn(&mut ExtractLimits)| {
        let mut options = ExtractOptions::default();
        options.limits.members = 2;
        options.limits.bytes = 5;
        options.limits.directory_names = 4;
        lower(&mut options.limits);
        Ground::new().extract_with(&archive, options)
    };
    extract(|_| {}).unwrap();
    let lowered: [fn(&mut ExtractLimits); 3] = [
        |limits| limits.members -= 1,
        |limits| limits.bytes -= 1,
        |limits| limits.directory_names -= 1,
    ];
    for lower in lowered {
        let error = extract(lower).unwrap_err();
        assert!(matches!(error.cause, ExtractCause::Limit), "{error}");
    }
}

#[test]
fn an_existing_directory_keeps_its_attributes() {
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

        #[test]
        fn archive_cannot_change_what_is_outside_of_the_destination(
            members in prop::collection::vec((kind(), name(), name()), 1..12),
        ) {
            // Each member is an archive of its own, so that a refused one does not stop the rest.
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
