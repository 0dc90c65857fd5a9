use std::cell::Cell;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn key(text: &str) -> Key {
    let mut key = Key::default();
    key.bytes(text.as_bytes());
    key
}

fn get(folder: &Path, text: &str) -> BootFile {
    let make = |output: &mut dyn Write| output.write_all(text.as_bytes());
    get_or_make(&Location::At(folder.to_owned()), key(text), "x", make).unwrap()
}

/// One that must be there.
fn find(folder: &Path, text: &str) -> BootFile {
    get_or_make::<io::Error>(&Location::At(folder.to_owned()), key(text), "x", |_| unreachable!())
        .unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn made_once_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let first = get(folder.path(), "a");
    assert_eq!(find(folder.path(), "a"), first);
    assert_eq!(fs::read(first.path()).unwrap(), b"a");
    assert_ne!(first, get(folder.path(), "b"));
    assert_eq!(names(folder.path()).len(), 4, "two files and their records");
}

#[test]
fn a_failed_making_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::At(folder.path().to_owned());
    let failed = get_or_make::<io::Error>(&location, key("a"), "x", |output| {
        output.write_all(b"half")?;
        Err(io::ErrorKind::InvalidData.into())
    });
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn what_was_damaged_is_made_anew_with_one_notice() {
    let folder = tempfile::tempdir().unwrap();
    let file = get(folder.path(), "content");
    let other = folder.path().join("other");
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
        let mended = get(folder.path(), "content");
        let notice = CacheNotice::Damaged(path.to_owned());
        assert_eq!(mended.notice(), Some(&notice), "{what}");
        assert_eq!(fs::read(path).unwrap(), b"content", "{what}");
        assert_eq!(find(folder.path(), "content").notice(), None, "{what}");
    }
    assert_eq!(fs::read(&other).unwrap(), b"precious");
}

#[test]
fn what_was_copied_with_its_record_is_fit_and_what_has_none_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = get(folder.path(), "content").path().to_owned();
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    fs::rename(&copy, &path).unwrap();
    assert_eq!(find(folder.path(), "content").notice(), None);
    fs::remove_file(folder.path().join(record_name(path.file_name().unwrap().to_str().unwrap())))
        .unwrap();
    assert_eq!(get(folder.path(), "content").notice(), None, "it is not known to be damaged");
    find(folder.path(), "content");
    for record in ["", "{", "[]", "{\"file\":[7],\"digest\":1}"] {
        let name = record_name(path.file_name().unwrap().to_str().unwrap());
        fs::write(folder.path().join(name), record).unwrap();
        get(folder.path(), "content");
        find(folder.path(), "content");
    }
}

#[test]
fn where_nothing_can_be_written_it_is_a_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    let made = Cell::new(0);
    let make = |output: &mut dyn Write| {
        made.set(made.get() + 1);
        output.write_all(b"content")
    };
    // Nobody can make a directory there, root neither.
    let location = Location::At("/proc/self/cache".into());
    let file = get_or_make(&location, key("a"), "x", make).unwrap();
    assert!(matches!(file.notice(), Some(CacheNotice::Unwritable { .. })), "{file:?}");
    let path = file.path().to_owned();
    let again = file.clone();
    drop(file);
    assert_eq!((fs::read(&path).unwrap().as_slice(), made.get()), (b"content".as_slice(), 1));
    drop(again);
    assert!(!path.exists());
    // A name that cannot be replaced.
    let location = Location::At(folder.path().to_owned());
    fs::create_dir(folder.path().join(key("a").name("x"))).unwrap();
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
    let folder = tempfile::tempdir().unwrap();
    let old = SystemTime::now() - Duration::from_secs(3600);
    let touch = |name: &str, age: u64| {
        let file = File::create(folder.path().join(name)).unwrap();
        file.set_modified(old + Duration::from_secs(age)).unwrap();
    };
    for number in 0..20 {
        touch(&format!("{number:02}.x"), number);
    }
    touch(".00.x.record", 100);
    touch(".gone.x.record", 0);
    // What earlier versions have left; a real file is not pushed out by it.
    for number in 0..20 {
        touch(&format!(".making-{number}"), 1000);
    }
    let made = get(folder.path(), "new");
    let name = made.path().file_name().unwrap().to_str().unwrap().to_owned();
    let mut expected: Vec<String> = (14..20).map(|number| format!("{number}.x")).collect();
    expected.extend(["00.x".into(), ".00.x.record".into(), name.clone(), record_name(&name)]);
    expected.sort();
    assert_eq!(names(folder.path()), expected);
}

#[test]
fn where_one_part_ends_and_the_next_begins_counts() {
    let (mut one, mut other) = (Key::default(), Key::default());
    one.bytes(b"ab").bytes(b"c");
    other.bytes(b"a").bytes(b"bc");
    assert_ne!(one.name("x"), other.name("x"));
}
