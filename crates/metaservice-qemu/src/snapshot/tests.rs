use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::json;

use super::draft::KEPT;
use super::{SnapshotDraft, SnapshotError, SnapshotKey, SnapshotStore};
use crate::find::qemu::{Qemu, QemuVersion};
use crate::overlay;
use crate::spec::MachineSpec;
use crate::spec::boot::Boot;
use crate::spec::disk::{Disk, DiskFormat};
use crate::spec::hardware::Cpus;

fn key(cpus: u32) -> SnapshotKey {
    let qemu = Qemu::new("/bin/sh", QemuVersion { major: 7, minor: 2 });
    let boot = Boot::Direct { kernel: "/bin/sh".into(), initramfs: None, arguments: Vec::new() };
    SnapshotKey::of(&MachineSpec::new(&qemu, boot).cpus(Cpus::new(cpus).unwrap())).unwrap()
}

fn begin(store: &SnapshotStore, key: &SnapshotKey) -> Option<SnapshotDraft> {
    store.draft(key, store.lock(false).unwrap().unwrap()).unwrap()
}

fn keep(store: &SnapshotStore, key: &SnapshotKey) {
    let making = begin(store, key).unwrap();
    fs::write(making.files().memory, "memory").unwrap();
    making.keep(b"state", &json!("words")).unwrap();
}

#[test]
fn a_snapshot_is_found_as_it_was_kept_by_its_key_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::at(directory.path().join("warm"));
    assert!(store.find(&key(1)).unwrap().is_none());
    keep(&store, &key(1));
    let found = store.find(&key(1)).unwrap().unwrap();
    assert_eq!((found.state(), found.notes()), (&b"state"[..], &json!("words")));
    assert_eq!(fs::read(found.files().memory).unwrap(), b"memory");
    for path in [directory.path().join("warm"), found.directory().to_owned()] {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
    }
    for name in ["memory", "state", "manifest"] {
        assert_eq!(fs::metadata(found.directory().join(name)).unwrap().mode() & 0o777, 0o600);
    }
    assert!(store.find(&key(2)).unwrap().is_none());
    assert!(begin(&store, &key(1)).is_none());
    // A part of a snapshot, as a killed removal leaves it, is none.
    fs::remove_file(found.directory().join("manifest")).unwrap();
    assert!(begin(&store, &key(1)).is_some());
}

#[test]
fn what_was_touched_is_broken_and_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::at(directory.path());
    for (name, content) in
        [("memory", "longer than before"), ("memory", "mem"), ("state", "stat"), ("manifest", "{")]
    {
        keep(&store, &key(1));
        let place = directory.path().join(&key(1).name);
        fs::write(place.join(name), content).unwrap();
        assert!(matches!(store.find(&key(1)), Err(SnapshotError::Broken(_))), "{name}");
        assert!(!place.exists());
    }
    keep(&store, &key(1));
    fs::remove_file(directory.path().join(&key(1).name).join("memory")).unwrap();
    store.find(&key(1)).unwrap_err();
    assert!(store.find(&key(1)).unwrap().is_none());
}

#[test]
fn one_maker_at_a_time_and_a_dropped_draft_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::at(directory.path());
    // What a killed process left.
    fs::create_dir(directory.path().join(".making-before")).unwrap();
    let making = begin(&store, &key(1)).unwrap();
    assert!(store.lock(false).unwrap().is_none());
    drop(making);
    let left: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn what_is_brought_in_while_a_machine_boots_makes_it_another() {
    let (one, other) = (key(1).depending_on(b"agent 1"), key(1).depending_on(b"agent 2"));
    assert_ne!(one, other);
    assert_eq!((&one.host, &one.family), (&other.host, &other.family));
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::at(directory.path());
    keep(&store, &one);
    keep(&store, &other);
    assert!(store.find(&one).unwrap().is_none(), "it is of no use any longer");
}

#[test]
fn snapshots_of_another_base_are_removed_and_a_few_of_the_same_stay() {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::at(directory.path());
    let other = SnapshotKey { name: "other".into(), base: "another kernel".into(), ..key(1) };
    let stranger =
        SnapshotKey { name: "stranger".into(), family: "a disk".into(), ..other.clone() };
    let elsewhere = SnapshotKey { name: "elsewhere".into(), host: "a host".into(), ..key(1) };
    for key in [&elsewhere, &other, &stranger] {
        keep(&store, key);
    }
    for cpus in 1..=6 {
        keep(&store, &key(cpus));
    }
    assert!(store.find(&other).unwrap().is_none());
    assert!(store.find(&elsewhere).unwrap().is_none(), "another QEMU");
    assert!(store.find(&stranger).unwrap().is_some(), "it boots from something else");
    let found = (1..=6).filter(|cpus| store.find(&key(*cpus)).unwrap().is_some());
    assert_eq!(found.count(), KEPT);
    assert!(store.find(&key(6)).unwrap().is_some());
}

#[test]
fn a_machine_with_a_disk_writes_over_it_and_goes_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::at(directory.path().join("warm"));
    let image = directory.path().join("image");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let key =
        SnapshotKey { disk: Some(Disk::new(&image, DiskFormat::Raw).size(1 << 20)), ..key(1) };
    let making = begin(&store, &key).unwrap();
    let over = making.files().disk.unwrap();
    assert!(fs::read(&over).unwrap().starts_with(overlay::MAGIC));
    making.keep(b"state", &json!(null)).unwrap();
    let found = store.find(&key).unwrap().unwrap();
    assert!(found.files().disk.unwrap().exists());
    assert_eq!(store.disks(), std::slice::from_ref(&image));
    fs::write(found.files().disk.unwrap(), "touched").unwrap();
    assert!(matches!(store.find(&key), Err(SnapshotError::Broken("its disk was changed"))));
    keep(&store, &key);
    store.remove_by_disk(Path::new("/another"));
    assert!(store.find(&key).unwrap().is_some());
    store.remove_by_disk(&image);
    assert!(store.find(&key).unwrap().is_none());
}

#[test]
fn a_memory_that_there_is_no_room_for_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::at(directory.path());
    let key = SnapshotKey { memory: 1 << 62, ..key(1) };
    let lock = store.lock(false).unwrap().unwrap();
    assert!(matches!(store.draft(&key, lock), Err(SnapshotError::Full { .. })));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "the lock");
}

#[test]
fn a_memory_has_its_room_while_it_is_made_and_gives_back_what_it_does_not_need() {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::at(directory.path().join("warm"));
    let making = begin(&store, &key(1)).unwrap();
    let memory = making.files().memory;
    let there = fs::metadata(&memory).unwrap();
    assert!(there.len() == key(1).memory && there.blocks() * 512 >= there.len());
    making.check_room().unwrap();
    use std::os::unix::fs::FileExt;
    let file = File::options().write(true).open(&memory).unwrap();
    file.write_all_at(&[1; 8192], 1 << 20).unwrap();
    making.keep(b"state", &json!("words")).unwrap();
    let found = store.find(&key(1)).unwrap().unwrap();
    let kept = fs::metadata(found.files().memory).unwrap();
    assert_eq!(kept.len(), key(1).memory);
    assert!(kept.blocks() * 512 < 1 << 20, "{} blocks", kept.blocks());
}

#[test]
fn what_others_could_have_changed_is_broken() {
    use std::os::unix::fs::symlink;
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::at(directory.path().join("warm"));
    let place = directory.path().join("warm").join(&key(1).name);
    let open = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    let damages: [&dyn Fn(); 3] = [&|| open(&place), &|| open(&place.join("state")), &|| {
        let moved = directory.path().join("moved");
        fs::rename(&place, &moved).unwrap();
        symlink(moved, &place).unwrap();
    }];
    for damage in damages {
        keep(&store, &key(1));
        damage();
        assert!(matches!(store.find(&key(1)), Err(SnapshotError::Broken(_))));
        assert!(store.find(&key(1)).unwrap().is_none());
    }
    keep(&store, &key(1));
    open(&directory.path().join("warm"));
    assert!(store.find(&key(1)).unwrap().is_some());
    assert_eq!(fs::metadata(directory.path().join("warm")).unwrap().mode() & 0o022, 0);
}

#[test]
fn automatic_snapshots_have_a_limit_and_one_in_use_stays() {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::at(directory.path().join("warm"));
    let image = directory.path().join("image");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let with_disk = SnapshotKey {
        name: "disk".into(),
        family: "a disk".into(),
        disk: Some(Disk::new(&image, DiskFormat::Raw).size(1 << 20)),
        ..key(1)
    };
    let making = begin(&store, &with_disk).unwrap();
    making.keep(b"state", &json!(null)).unwrap();
    for cpus in 1..=3 {
        keep(&store, &key(cpus));
    }
    let names = |store: &SnapshotStore| {
        let mut names: Vec<_> = store.list().into_iter().map(|one| (one.cpus, one.disk)).collect();
        names.sort();
        names
    };
    let all = store.list();
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|one| one.size > 0 && !one.in_use));
    let found = store.find(&key(1)).unwrap().unwrap();
    let mark = found.mark_in_use().unwrap();
    assert!(store.list().iter().any(|one| one.in_use && one.cpus == Some(1)));
    // There is room for none of them.
    let small = SnapshotStore::at(directory.path().join("warm")).limit(1);
    keep(&small, &key(4));
    let own = (Some(1), Some(image.clone()));
    assert_eq!(names(&store), [(Some(1), None), own.clone(), (Some(4), None)]);
    assert_eq!(store.prune(false).len(), 1);
    assert_eq!(names(&store), [(Some(1), None), own.clone()]);
    drop(mark);
    assert_eq!(store.prune(false).len(), 1);
    assert_eq!(names(&store), [own]);
    assert_eq!(store.prune(true).len(), 1);
    assert!(store.list().is_empty());
}
