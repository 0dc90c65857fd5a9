use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn cause<T: fmt::Debug>(outcome: Result<T, PrivateError>) -> NotPrivate {
    match outcome {
        Err(PrivateError::NotPrivate { cause, .. }) => cause,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_directory_is_made_for_its_user_alone_and_found_again() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("new");
    assert!(Directory::open_or_make(&path).unwrap().1);
    assert!(!Directory::open_or_make(&path).unwrap().1);
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
}

#[test]
fn the_parent_of_a_directory_is_not_made() {
    let parent = tempfile::tempdir().unwrap();
    let error = Directory::open_or_make(&parent.path().join("none/new")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        set_mode(directory.path(), mode);
        assert_eq!(cause(Directory::open(directory.path())), NotPrivate::Mode(mode));
    }
}

#[test]
fn a_link_to_a_directory_is_refused_however_it_is_written() {
    let parent = tempfile::tempdir().unwrap();
    let at = |name: &str| parent.path().join(name);
    fs::create_dir(at("target")).unwrap();
    symlink(at("target"), at("link")).unwrap();
    for link in ["link", "link/", "link/.", "link//"] {
        assert_eq!(cause(Directory::open(&at(link))), NotPrivate::Link, "{link}");
        assert_eq!(cause(Directory::open_or_make(&at(link))), NotPrivate::Link, "{link}");
    }
}

#[test]
fn the_target_of_a_dangling_link_is_not_made() {
    let parent = tempfile::tempdir().unwrap();
    let at = |name: &str| parent.path().join(name);
    symlink(at("none"), at("dangling")).unwrap();
    assert_eq!(cause(Directory::open_or_make(&at("dangling"))), NotPrivate::Link);
    assert!(!at("none").exists());
}

#[test]
fn a_file_in_the_place_of_a_directory_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(cause(Directory::open_or_make(file.path())), NotPrivate::Kind);
}

#[test]
fn a_directory_of_another_user_is_refused() {
    // Only root can make one.
    if geteuid().is_root() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(directory.path(), Some(12345), None).unwrap();
        assert_eq!(cause(Directory::open(directory.path())), NotPrivate::Owner(12345));
    }
}

/// A private directory beside a file `victim`.
struct Ground {
    all: TempDir,
    directory: Directory,
}

impl Ground {
    fn new() -> Self {
        let all = tempfile::tempdir().unwrap();
        fs::write(all.path().join("victim"), "precious").unwrap();
        let directory = Directory::open_or_make(&all.path().join("directory")).unwrap().0;
        Self { all, directory }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn victim(&self) -> PathBuf {
        self.all.path().join("victim")
    }
}

#[test]
fn a_file_that_others_can_have_made_is_refused() {
    let ground = Ground::new();
    symlink(ground.victim(), ground.at("link")).unwrap();
    symlink(ground.at("none"), ground.at("dangling")).unwrap();
    fs::hard_link(ground.victim(), ground.at("hard")).unwrap();
    fs::write(ground.at("open"), "").unwrap();
    set_mode(&ground.at("open"), 0o666);
    let fifo = std::process::Command::new("mkfifo").arg(ground.at("fifo")).status().unwrap();
    assert!(fifo.success());
    for (name, wrong) in [
        ("link", NotPrivate::Link),
        ("dangling", NotPrivate::Link),
        ("hard", NotPrivate::Names(2)),
        ("open", NotPrivate::Mode(0o666)),
        ("fifo", NotPrivate::Kind),
    ] {
        assert_eq!(cause(ground.directory.read(name)), wrong, "{name}");
        assert_eq!(cause(ground.directory.append(name)), wrong, "{name}");
        assert!(ground.directory.create(name).is_err(), "{name}");
    }
    assert!(!ground.at("none").exists());
    assert_eq!(fs::read(ground.victim()).unwrap(), b"precious");
}

#[test]
fn a_directory_in_the_place_of_a_file_is_an_error() {
    let ground = Ground::new();
    fs::create_dir(ground.at("below")).unwrap();
    assert!(ground.directory.append("below").is_err());
    assert!(ground.directory.read("below").is_err());
}

#[test]
fn a_replacement_replaces_links_and_not_their_targets() {
    let ground = Ground::new();
    for link in ["link", "link.next"] {
        symlink(ground.victim(), ground.at(link)).unwrap();
    }
    ground.directory.replace("link", b"new").unwrap();
    assert_eq!(fs::read(ground.at("link")).unwrap(), b"new");
    assert_eq!(fs::read(ground.victim()).unwrap(), b"precious");
    assert!(!ground.at("link.next").exists());
}

#[test]
fn bytes_are_appended_to_a_file_of_its_user_alone() {
    let Ground { directory, all: _all } = Ground::new();
    assert!(directory.read("a").unwrap().is_none());
    directory.append("a").unwrap().write_all(b"one").unwrap();
    directory.append("a").unwrap().write_all(b"two").unwrap();
    let mut file = directory.read("a").unwrap().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "onetwo");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn an_existing_file_is_not_created() {
    let Ground { directory, all: _all } = Ground::new();
    directory.create("a").unwrap();
    assert_eq!(directory.create("a").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn a_file_can_be_removed_twice() {
    let Ground { directory, all: _all } = Ground::new();
    directory.replace("a", b"all").unwrap();
    assert_eq!(directory.names().unwrap(), ["a"]);
    directory.remove("a").unwrap();
    directory.remove("a").unwrap();
    assert!(directory.names().unwrap().is_empty());
}

#[test]
fn directories_of_a_program_are_closed_to_other_users() {
    let base = tempfile::tempdir().unwrap();
    let deep = Directory::within(base.path(), &["a", "b"]).unwrap();
    assert_eq!(deep.path(), base.path().join("a/b"));
    set_mode(&base.path().join("a"), 0o777);
    Directory::within(base.path(), &["a", "b"]).unwrap();
    assert_eq!(base.path().join("a").metadata().unwrap().mode() & 0o777, 0o755);
}

#[test]
fn a_link_is_followed_if_only_its_user_can_have_made_it() {
    let base = tempfile::tempdir().unwrap();
    Directory::within(base.path(), &["a", "b"]).unwrap();
    symlink(base.path().join("a"), base.path().join("link")).unwrap();
    Directory::within(base.path(), &["link", "b"]).unwrap();
    // Now other users can make links.
    set_mode(base.path(), 0o1777);
    assert_eq!(cause(Directory::within(base.path(), &["link"])), NotPrivate::Link);
    Directory::within(base.path(), &["a"]).unwrap();
    set_mode(base.path(), 0o700);
}

#[test]
fn the_base_of_a_programs_directories_is_not_made() {
    let parent = tempfile::tempdir().unwrap();
    let base = parent.path().join("none");
    assert!(Directory::within(&base, &["a"]).is_err() && !base.exists());
}
