//! Archives of the packer, read by another implementation and resumed at each place.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;
use rustix::fs::CWD;

use super::*;
use crate::{ExtractCause, ExtractOptions, Extractor};

fn pack(mut packer: Packer) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(block) = packer.next_block().unwrap() {
        assert!((1..=BLOCK).contains(&block.bytes.len()));
        all.extend(block.bytes);
    }
    all
}

/// A member as the `tar` crate reads it.
struct Member {
    name: String,
    kind: EntryType,
    /// The content, or the target of a link.
    content: Vec<u8>,
    mode: u32,
}

fn read(archive: &[u8]) -> Vec<Member> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    entries
        .map(Result::unwrap)
        .filter(|entry| entry.header().entry_type() != EntryType::XGlobalHeader)
        .map(|mut entry| {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let mut content =
                entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
            entry.read_to_end(&mut content).unwrap();
            let mode = entry.header().mode().unwrap();
            Member { name, kind: entry.header().entry_type(), content, mode }
        })
        .collect()
}

fn names(archive: &[u8]) -> Vec<String> {
    read(archive).into_iter().map(|member| member.name).collect()
}

/// A directory with something of each kind.
fn tree() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::create_dir(path.join("b")).unwrap();
    std::fs::write(path.join("b/x"), b"abc").unwrap();
    std::fs::write(path.join("b.c"), vec![7; 1000]).unwrap();
    std::fs::set_permissions(path.join("b.c"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    std::fs::hard_link(path.join("b/x"), path.join("c")).unwrap();
    symlink("/nowhere", path.join("a")).unwrap();
    std::fs::write(path.join(long()), b"long").unwrap();
    rustix::fs::mknodat(CWD, path.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    directory
}

fn long() -> String {
    "n".repeat(200)
}

#[test]
fn a_directory_has_another_name_also_where_it_is_resumed() {
    let from = tempfile::tempdir().unwrap();
    std::fs::create_dir(from.path().join("sub")).unwrap();
    for name in ["a", "sub/b"] {
        std::fs::write(from.path().join(name), vec![1; 3000]).unwrap();
    }
    std::fs::hard_link(from.path().join("a"), from.path().join("sub/c")).unwrap();
    std::os::unix::fs::symlink("a", from.path().join("z")).unwrap();
    let name = Some(OsStr::new("dir"));
    let read = |mut packer: Packer| {
        packer.mark_every(1);
        let (mut all, mut cursors) = (Vec::new(), Vec::new());
        while let Some(block) = packer.next_block().unwrap() {
            all.extend(block.bytes);
            cursors.extend(block.cursor.map(|cursor| (all.len(), cursor)));
        }
        (all, cursors)
    };
    let (archive, cursors) = read(Packer::open_as(from.path(), name).unwrap());
    let mut members = Vec::new();
    for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
        let entry = entry.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let link = entry.link_name_bytes().map(|link| text(&link)).unwrap_or_default();
        members.push((text(&entry.path_bytes()), link));
    }
    let members: Vec<_> = members.iter().map(|(name, link)| (&**name, &**link)).collect();
    let expected = [
        ("dir/", ""),
        ("dir/a", ""),
        ("dir/sub/", ""),
        ("dir/sub/b", ""),
        ("dir/sub/c", "dir/a"),
        ("dir/z", "a"),
    ];
    assert_eq!(members, expected);
    assert!(!cursors.is_empty());
    for (place, cursor) in cursors {
        let rest = read(Packer::resume_as(from.path(), &cursor, name).unwrap()).0;
        // Without the first member of a hard link, the file itself comes.
        if !cursor.contains("sub") && cursor != "a" {
            continue;
        }
        if cursor.contains("sub/c") || cursor == "z" {
            assert!(rest == archive[place..], "{cursor}");
        }
    }
}

#[test]
fn members_are_sorted_by_the_bytes_of_their_names() {
    let directory = tree();
    let archive = pack(Packer::open(directory.path()).unwrap());
    assert_eq!(names(&archive), ["./", "a", "b/", "b/x", "b.c", "c", &long()]);
}

#[test]
fn another_implementation_reads_each_kind_of_member() {
    let directory = tree();
    let members = read(&pack(Packer::open(directory.path()).unwrap()));
    let long = long();
    let found: BTreeMap<&str, &Member> =
        members.iter().map(|member| (member.name.as_str(), member)).collect();
    for (name, kind, content) in [
        ("a", EntryType::Symlink, &b"/nowhere"[..]),
        ("b/x", EntryType::Regular, b"abc"),
        ("c", EntryType::Link, b"b/x"),
        (&long, EntryType::Regular, b"long"),
    ] {
        assert_eq!((found[name].kind, &found[name].content[..]), (kind, content), "{name}");
    }
    assert_eq!(found["b.c"].mode, 0o4755);
}

#[test]
fn the_packer_counts_what_it_packs_and_leaves_out() {
    let directory = tree();
    let mut packer = Packer::open(directory.path()).unwrap();
    while packer.next_block().unwrap().is_some() {}
    assert!(packer.skipped().is_empty());
    let left_out = LeftOut { count: 1, first: vec!["fifo".into()] };
    let (files, links, bytes) = (4, 1, 3 + 1000 + 4);
    assert_eq!(packer.packed(), &Packed { files, links, bytes, left_out });
}

#[test]
fn the_extractor_reports_what_the_packer_left_out() {
    let (from, to) = (tree(), tempfile::tempdir().unwrap());
    let archive = pack(Packer::open(from.path()).unwrap());
    let extractor = Extractor::open(to.path(), ExtractOptions::default()).unwrap();
    let extracted = extractor.extract(&archive[..]).unwrap();
    assert_eq!(extracted.left_out, LeftOut { count: 1, first: vec!["fifo".into()] });
    assert!(!to.path().join("fifo").exists());
}

#[test]
fn a_fifo_alone_or_a_missing_file_is_an_error() {
    let directory = tree();
    assert!(Packer::open(&directory.path().join("fifo")).is_err());
    assert!(Packer::open(&directory.path().join("none")).is_err());
}

#[test]
fn one_file_or_link_is_a_member_of_its_own_name() {
    let directory = tree();
    for (path, name, kind, content) in
        [("b/x", "x", EntryType::Regular, &b"abc"[..]), ("a", "a", EntryType::Symlink, b"/nowhere")]
    {
        let members = read(&pack(Packer::open(&directory.path().join(path)).unwrap()));
        let [member] = &members[..] else { panic!("{} members", members.len()) };
        assert_eq!((&*member.name, member.kind, &member.content[..]), (name, kind, content));
    }
}

#[test]
fn zeros_replace_the_end_of_a_file_that_becomes_shorter() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, vec![1; 600_000]).unwrap();
    let mut packer = Packer::open(directory.path()).unwrap();
    let mut all = packer.next_block().unwrap().unwrap().bytes;
    File::options().write(true).open(&path).unwrap().set_len(300_000).unwrap();
    while let Some(block) = packer.next_block().unwrap() {
        all.extend(block.bytes);
    }
    let file = &read(&all)[1];
    assert_eq!(file.content.len(), 600_000);
    assert!(file.content[300_000..].iter().all(|byte| *byte == 0));
    assert_eq!(packer.skipped().len(), 1);
}

#[test]
fn a_member_has_the_nanoseconds_of_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    std::fs::write(&path, b"").unwrap();
    let status = std::fs::metadata(&path).unwrap();
    let archive = pack(Packer::open(&path).unwrap());
    let mtime = format!("mtime={}.{:09}\n", status.mtime(), status.mtime_nsec());
    assert!(archive.windows(mtime.len()).any(|window| window == mtime.as_bytes()), "{mtime}");
}

// In `/dev`, which is in memory, devpts is mounted.

#[test]
fn a_file_system_of_the_kernel_is_not_entered() {
    let names = names(&pack(Packer::open(Path::new("/dev")).unwrap()));
    assert!(names.contains(&"pts/".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("pts/") && name != "pts/"), "{names:?}");
}

#[test]
fn a_cursor_does_not_lead_into_a_file_system_of_the_kernel() {
    let names = names(&pack(Packer::resume(Path::new("/dev"), "pts/").unwrap()));
    assert!(!names.iter().any(|name| name.starts_with("pts/")), "{names:?}");
}

#[test]
fn a_file_system_of_the_kernel_that_is_named_is_packed_with_its_content() {
    let members = read(&pack(Packer::open(Path::new("/proc/sys/kernel")).unwrap()));
    let release = members.iter().find(|member| member.name == "osrelease").unwrap();
    assert_eq!(release.content, std::fs::read("/proc/sys/kernel/osrelease").unwrap());
    let alone = read(&pack(Packer::open(Path::new("/proc/version")).unwrap()));
    assert_eq!(alone[0].content, std::fs::read("/proc/version").unwrap());
}

#[test]
fn a_file_without_an_end_is_left_out() {
    let mut packer = Packer::open(Path::new("/proc/self/pagemap")).unwrap();
    while packer.next_block().unwrap().is_some() {}
    assert_eq!(packer.packed().left_out.count, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn an_archive_is_the_same_after_each_cursor(
        files in proptest::collection::btree_map(
            "[abc]{1,2}(/[a.b]{1,2}x){0,2}", 0usize..3000, 0..12,
        ),
        every in 1u64..5000,
    ) {
        let directory = tempfile::tempdir().unwrap();
        for (name, length) in &files {
            let path = directory.path().join(name);
            // It fails if a file has the name of the directory.
            if std::fs::create_dir_all(path.parent().unwrap()).is_ok() {
                let _ = std::fs::write(&path, vec![b'x'; *length]);
            }
        }
        let all = pack(Packer::open(directory.path()).unwrap());
        let mut packer = Packer::open(directory.path()).unwrap();
        packer.mark_every(every);
        let mut done = 0;
        while let Some(block) = packer.next_block().unwrap() {
            done += block.bytes.len();
            if let Some(cursor) = block.cursor {
                let rest = pack(Packer::resume(directory.path(), &cursor).unwrap());
                prop_assert!(rest == all[done..], "after {}", cursor);
            }
        }
        prop_assert_eq!(done, all.len());
    }

    #[test]
    fn any_cursor_is_handled(cursor in ".{0,40}") {
        let directory = tempfile::tempdir().unwrap();
        if let Ok(packer) = Packer::resume(directory.path(), &cursor) {
            pack(packer);
        }
    }
}

/// The first block of an archive with one file of this size, without content.
fn start_of_a_file(size: u64) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large");
    File::create(&path).unwrap().set_len(size).unwrap();
    Packer::open(&path).unwrap().next_block().unwrap().unwrap().bytes
}

/// More than eleven octal digits.
const LARGE: u64 = (8 << 30) + 5;

#[test]
fn a_size_that_is_too_large_for_octal_digits_is_read_by_another_implementation() {
    let block = start_of_a_file(LARGE);
    let mut archive = tar::Archive::new(&block[..]);
    let mut entries = archive.entries().unwrap().raw(true).map(Result::unwrap);
    let entry = entries.find(|entry| entry.header().entry_type().is_file()).unwrap();
    assert_eq!(entry.size(), LARGE);
}

#[test]
fn the_extractor_applies_its_limit_to_a_size_that_is_too_large_for_octal_digits() {
    let block = start_of_a_file(LARGE);
    for (bytes, limited) in [(LARGE - 1, true), (LARGE, false)] {
        let to = tempfile::tempdir().unwrap();
        let mut options = ExtractOptions::default();
        options.limits.bytes = bytes;
        let extractor = Extractor::open(to.path(), options).unwrap();
        let error = extractor.extract(&block[..]).unwrap_err();
        assert_eq!(matches!(error.cause, ExtractCause::Limit), limited, "{error}");
    }
}
