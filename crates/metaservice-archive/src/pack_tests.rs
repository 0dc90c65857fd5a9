//! What a packer makes, read by another implementation, and begun again at every place.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;

fn pack(mut packer: Packer) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(block) = packer.next_block().unwrap() {
        assert!((1..=BLOCK).contains(&block.bytes.len()));
        all.extend(block.bytes);
    }
    all
}

/// Name, kind, content or target, mode, and modification time of each member.
type Member = (String, EntryType, Vec<u8>, u32);

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
            (name, entry.header().entry_type(), content, entry.header().mode().unwrap())
        })
        .collect()
}

fn tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("b")).unwrap();
    std::fs::write(path.join("b/x"), b"abc").unwrap();
    std::fs::write(path.join("b.c"), vec![7; 1000]).unwrap();
    std::fs::set_permissions(path.join("b.c"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    std::fs::hard_link(path.join("b/x"), path.join("c")).unwrap();
    symlink("/nowhere", path.join("a")).unwrap();
    let long = "n".repeat(200);
    std::fs::write(path.join(&long), b"long").unwrap();
    rustix::fs::mknodat(CWD, path.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    folder
}

#[test]
fn another_reader_understands_all_of_it() {
    let folder = tree();
    let packer = Packer::open(folder.path()).unwrap();
    let members = read(&pack(packer));
    let names: Vec<&str> = members.iter().map(|(name, ..)| name.as_str()).collect();
    let long = "n".repeat(200);
    assert_eq!(names, ["./", "a", "b/", "b/x", "b.c", "c", &long]);
    let kinds: BTreeMap<&str, (EntryType, &[u8])> = members
        .iter()
        .map(|(name, kind, content, _)| (name.as_str(), (*kind, &content[..])))
        .collect();
    assert_eq!(kinds["a"], (EntryType::Symlink, &b"/nowhere"[..]));
    assert_eq!(kinds["b/x"], (EntryType::Regular, &b"abc"[..]));
    assert_eq!(kinds["c"], (EntryType::Link, &b"b/x"[..]));
    assert_eq!(kinds[long.as_str()], (EntryType::Regular, &b"long"[..]));
    assert_eq!(members[4].3, 0o4755);
}

#[test]
fn what_is_left_out_is_told() {
    let folder = tree();
    let mut packer = Packer::open(folder.path()).unwrap();
    while packer.next_block().unwrap().is_some() {}
    assert!(packer.skipped().is_empty());
    let left_out = LeftOut { count: 1, first: vec!["fifo".into()] };
    assert_eq!(packer.packed().left_out, left_out);
    let (files, links, bytes) = (4, 1, 3 + 1000 + 4);
    assert_eq!(packer.packed(), &Packed { files, links, bytes, left_out: left_out.clone() });
    // The other end hears of it, by a record that other programs pass over.
    let to = tempfile::tempdir().unwrap();
    let archive = pack(Packer::open(folder.path()).unwrap());
    let extractor = crate::Extractor::open(to.path(), crate::Options::default()).unwrap();
    assert_eq!(extractor.extract(&archive[..]).unwrap().left_out, left_out);
    assert!(!to.path().join("fifo").exists());
    assert!(Packer::open(&folder.path().join("fifo")).is_err());
    assert!(Packer::open(&folder.path().join("none")).is_err());
}

#[test]
fn one_file_and_one_link_are_members_of_their_own_names() {
    let folder = tree();
    let members = read(&pack(Packer::open(&folder.path().join("b/x")).unwrap()));
    assert_eq!(members.len(), 1);
    assert_eq!((members[0].0.as_str(), &members[0].2[..]), ("x", &b"abc"[..]));
    let members = read(&pack(Packer::open(&folder.path().join("a")).unwrap()));
    assert_eq!((members[0].1, &members[0].2[..]), (EntryType::Symlink, &b"/nowhere"[..]));
}

#[test]
fn a_file_that_shrinks_keeps_the_archive_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, vec![1; 600_000]).unwrap();
    let mut packer = Packer::open(folder.path()).unwrap();
    let mut all = packer.next_block().unwrap().unwrap().bytes;
    File::options().write(true).open(&path).unwrap().set_len(300_000).unwrap();
    while let Some(block) = packer.next_block().unwrap() {
        all.extend(block.bytes);
    }
    let members = read(&all);
    assert_eq!(members[1].2.len(), 600_000);
    assert!(members[1].2[300_000..].iter().all(|byte| *byte == 0));
    assert_eq!(packer.skipped().len(), 1);
}

#[test]
fn times_have_their_fractions() {
    assert_eq!(time(12, 5), "12.000000005");
    assert_eq!(time(-1, 750_000_000), "-0.250000000");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    std::fs::write(&path, b"").unwrap();
    let status = std::fs::metadata(&path).unwrap();
    let archive = pack(Packer::open(&path).unwrap());
    let mtime = format!("mtime={}.{:09}\n", status.mtime(), status.mtime_nsec());
    assert!(archive.windows(mtime.len()).any(|window| window == mtime.as_bytes()), "{mtime}");
}

#[test]
fn records_count_their_own_length() {
    for length in [1, 5, 86, 87, 88, 89, 90, 200, 980, 990, 1000] {
        let mut records = Vec::new();
        record(&mut records, b"k", &vec![b'v'; length]);
        let text = String::from_utf8(records).unwrap();
        assert_eq!(text.split_once(' ').unwrap().0, text.len().to_string());
    }
}

#[test]
fn file_systems_of_the_kernel_are_left_out_unless_named() {
    // /dev is of memory, and devpts is mounted in it.
    let mut packer = Packer::open(Path::new("/dev")).unwrap();
    let mut all = Vec::new();
    while let Some(block) = packer.next_block().unwrap() {
        all.extend(block.bytes);
    }
    let names: Vec<String> = read(&all).into_iter().map(|(name, ..)| name).collect();
    assert!(names.contains(&"pts/".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("pts/") && name != "pts/"), "{names:?}");
    // A cursor behind it does not lead into it.
    let resumed = read(&pack(Packer::resume(Path::new("/dev"), "pts/").unwrap()));
    assert!(!resumed.iter().any(|(name, ..)| name.starts_with("pts/")), "{resumed:?}");
    // One that is named is packed, with what its files say and not with their sizes.
    let members = read(&pack(Packer::open(Path::new("/proc/sys/kernel")).unwrap()));
    let release = members.iter().find(|(name, ..)| name == "osrelease").unwrap();
    assert_eq!(release.2, std::fs::read("/proc/sys/kernel/osrelease").unwrap());
    let alone = read(&pack(Packer::open(Path::new("/proc/version")).unwrap()));
    assert_eq!(alone[0].2, std::fs::read("/proc/version").unwrap());
    // A file without an end is left out and does not keep the rest.
    let mut packer = Packer::open(Path::new("/proc/self/pagemap")).unwrap();
    while packer.next_block().unwrap().is_some() {}
    assert_eq!(packer.packed().left_out.count, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn an_archive_is_the_same_from_any_cursor_on(
        files in proptest::collection::btree_map("[abc]{1,2}(/[a.b]{1,2}x){0,2}", 0usize..3000, 0..12),
        every in 1u64..5000,
    ) {
        let folder = tempfile::tempdir().unwrap();
        for (name, length) in &files {
            let path = folder.path().join(name);
            // A file may stand where a folder was to be.
            if std::fs::create_dir_all(path.parent().unwrap()).is_ok() {
                let _ = std::fs::write(&path, vec![b'x'; *length]);
            }
        }
        let all = pack(Packer::open(folder.path()).unwrap());
        let mut packer = Packer::open(folder.path()).unwrap();
        packer.mark_every(every);
        let mut done = 0;
        while let Some(block) = packer.next_block().unwrap() {
            done += block.bytes.len();
            if let Some(cursor) = block.cursor {
                let rest = pack(Packer::resume(folder.path(), &cursor).unwrap());
                prop_assert!(rest == all[done..], "behind {}", cursor);
            }
        }
        prop_assert_eq!(done, all.len());
    }

    #[test]
    fn any_path_survives_a_cursor(path in proptest::collection::vec(1u8.., 0..40)) {
        let text = escape(&path);
        prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        prop_assert_eq!(unescape(&text), Some(path));
    }

    #[test]
    fn any_cursor_is_survived(cursor in ".{0,40}") {
        let folder = tempfile::tempdir().unwrap();
        if let Ok(packer) = Packer::resume(folder.path(), &cursor) {
            pack(packer);
        }
    }
}

#[test]
fn a_file_too_large_for_octal_digits_keeps_its_size() {
    use crate::{Extractor, Limits, Options, Reason};
    let folder = tempfile::tempdir().unwrap();
    let size = (8 << 30) + 5;
    std::fs::File::create(folder.path().join("large")).unwrap().set_len(size).unwrap();
    let mut packer = Packer::open(&folder.path().join("large")).unwrap();
    let block = packer.next_block().unwrap().unwrap().bytes;
    let mut archive = tar::Archive::new(&block[..]);
    let mut entries = archive.entries().unwrap().raw(true).map(Result::unwrap);
    let entry = entries.find(|entry| entry.header().entry_type().is_file()).unwrap();
    assert_eq!(entry.size(), size);
    // The extractor understands it: it is too large, and nothing worse.
    for (bytes, limited) in [(size - 1, true), (size, false)] {
        let limits = Limits { bytes, ..Limits::default() };
        let to = tempfile::tempdir().unwrap();
        let extractor =
            Extractor::open(to.path(), Options { limits, ..Options::default() }).unwrap();
        let error = extractor.extract(&block[..]).unwrap_err();
        assert_eq!(matches!(error.reason, Reason::Limit), limited, "{error}");
    }
}
