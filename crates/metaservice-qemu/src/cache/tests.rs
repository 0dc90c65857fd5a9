use std::cell::Cell;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn key(text: &str) -> Key {
    let mut key = Key::default();
    key.bytes(text.as_bytes());
    key
}

fn get(directory: &Path, text: &str) -> BootFile {
    let make = |output: &mut dyn Write| output.write_all(text.as_bytes());
    get_or_make(&Location::At(directory.to_owned()), key(text), "x", make).unwrap()
}

/// Finds a file that must be in the cache.
fn find(directory: &Path, text: &str) -> BootFile {
    get_or_make::<io::Error>(
        &Location::At(directory.to_owned()),
        key(text),
        "x",
        |_| unreachable!(),
    )
    .unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn made_once_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let first = get(directory.path(), "a");
    assert_eq!(find(directory.path(), "a"), first);
    assert_eq!(fs::read(first.path()).unwrap(), b"a");
    assert_ne!(first, get(directory.path(), "b"));
    assert_eq!(names(directory.path()).len(), 4, "two files and their records");
}

#[test]
fn a_failed_making_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::At(directory.path().to_owned());
    let failed = get_or_make::<io::Error>(&location, key("a"), "x", |output| {
        output.write_all(b"half")?;
        Err(io::ErrorKind::InvalidData.into())
    });
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(names(directory.path()).is_empty());
}

#[test]
fn what_was_damaged_is_made_anew_with_one_notice() {
    let directory = tempfile::tempdir().unwrap();
    let file = get(directory.path(), "content");
    let other = directory.path().join("other");
    fs::write(&other, "precious").unwrap();
    let path = file.path();
    let damages: [(&str, &dyn Fn()); 7] = [
        ("emptied", &|| fs::write(path, "").unwrap()),
        ("half", &|| fs::write(path, "cont").unwrap()),
        ("longer", &|| fs::write(path, "content and more").unwrap()),
        ("other bytes", &|| fs::write(path, "c0ntent").unwrap()),
        ("other bytes of the same time", &|| {
            let modified = path.metadata().unwrap().modified().unwrap();
            fs::write(path, "c0ntent").unwrap();
            File::options().append(true).open(path).unwrap().set_modified(modified).unwrap();
        }),
        ("a link", &|| {
            fs::remove_file(path).unwrap();
            symlink(&other, path).unwrap();
        }),
        ("open to others", &|| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        }),
    ];
    for (what, damage) in damages {
        damage();
        let mended = get(directory.path(), "content");
        let notice = CacheNotice::Damaged(path.to_owned());
        assert_eq!(mended.notice(), Some(&notice), "{what}");
        assert_eq!(fs::read(path).unwrap(), b"content", "{what}");
        assert_eq!(find(directory.path(), "content").notice(), None, "{what}");
    }
    assert_eq!(fs::read(&other).unwrap(), b"precious");
}

#[test]
fn what_was_copied_with_its_record_is_fit_and_what_has_none_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = get(directory.path(), "content").path().to_owned();
    let copy = directory.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    fs::rename(&copy, &path).unwrap();
    assert_eq!(find(directory.path(), "content").notice(), None);
    fs::remove_file(
        directory.path().join(record_name(path.file_name().unwrap().to_str().unwrap())),
    )
    .unwrap();
    assert_eq!(get(directory.path(), "content").notice(), None, "it is not known to be damaged");
    find(directory.path(), "content");
    for record in ["", "{", "[]", "{\"file\":[7],\"digest\":1}"] {
        let name = record_name(path.file_name().unwrap().to_str().unwrap());
        fs::write(directory.path().join(name), record).unwrap();
        get(directory.path(), "content");
        find(directory.path(), "content");
    }
}

#[test]
fn where_nothing_can_be_written_it_is_a_temporary_file() {
    let directory = tempfile::tempdir().unwrap();
    let made = Cell::new(0);
    let make = |output: &mut dyn Write| {
        made.set(made.get() + 1);
        output.write_all(b"content")
    };
    // No user can create a directory there, not even root.
    let location = Location::At("/proc/self/cache".into());
    let file = get_or_make(&location, key("a"), "x", make).unwrap();
    assert!(matches!(file.notice(), Some(CacheNotice::Unwritable { .. })), "{file:?}");
    let path = file.path().to_owned();
    let again = file.clone();
    drop(file);
    assert_eq!((fs::read(&path).unwrap().as_slice(), made.get()), (b"content".as_slice(), 1));
    drop(again);
    assert!(!path.exists());
    // A directory has the name of the file, so it cannot be replaced.
    let location = Location::At(directory.path().to_owned());
    fs::create_dir(directory.path().join(key("a").name("x"))).unwrap();
    let file = get_or_make(&location, key("a"), "x", make).unwrap();
    assert!(matches!(file.notice(), Some(CacheNotice::Unwritable { .. })), "{file:?}");
}

#[test]
fn a_full_file_system_is_told_from_what_cannot_be_made() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let failed = fill::<io::Error>(&full, |output| output.write_all(b"content"));
    assert!(
        matches!(failed, Err(Failed::Write(error)) if error.kind() == io::ErrorKind::StorageFull)
    );
    let failed = fill::<io::Error>(&full, |_| Err(io::ErrorKind::StorageFull.into()));
    assert!(matches!(failed, Err(Failed::Make(_))));
}

#[test]
fn only_the_most_recently_used_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let old = SystemTime::now() - Duration::from_secs(3600);
    let touch = |name: &str, age: u64| {
        let file = File::create(directory.path().join(name)).unwrap();
        file.set_modified(old + Duration::from_secs(age)).unwrap();
    };
    for number in 0..20 {
        touch(&format!("{number:02}.x"), number);
    }
    touch(".00.x.record", 100);
    touch(".gone.x.record", 0);
    // Temporary files of earlier versions. They must not displace a real file.
    for number in 0..20 {
        touch(&format!(".making-{number}"), 1000);
    }
    let made = get(directory.path(), "new");
    let name = made.path().file_name().unwrap().to_str().unwrap().to_owned();
    let mut expected: Vec<String> = (14..20).map(|number| format!("{number}.x")).collect();
    expected.extend(["00.x".into(), ".00.x.record".into(), name.clone(), record_name(&name)]);
    expected.sort();
    assert_eq!(names(directory.path()), expected);
}

#[test]
fn where_one_part_ends_and_the_next_begins_counts() {
    let (mut one, mut other) = (Key::default(), Key::default());
    one.bytes(b"ab").bytes(b"c");
    other.bytes(b"a").bytes(b"bc");
    assert_ne!(one.name("x"), other.name("x"));
}
