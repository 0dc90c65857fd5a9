use super::*;
use crate::find::{Qemu, QemuVersion};
use crate::hardware::Cpus;

fn key(cpus: u32) -> SavedKey {
    let qemu = Qemu { path: "/bin/sh".into(), version: QemuVersion { major: 7, minor: 2 } };
    let boot = Boot::Direct { kernel: "/bin/sh".into(), initramfs: None, arguments: Vec::new() };
    SavedKey::of(&MachineSpec::new(&qemu, boot).cpus(Cpus::new(cpus).unwrap())).unwrap()
}

fn begin(saved: &SavedMachines, key: &SavedKey) -> Option<Making> {
    match saved.make(key, false).unwrap() {
        Begun::Making(making) => Some(*making),
        Begun::There | Begun::Busy => None,
    }
}

fn keep(saved: &SavedMachines, key: &SavedKey) {
    let making = begin(saved, key).unwrap();
    fs::write(making.written().memory, "memory").unwrap();
    making.keep(b"state", &json!("words")).unwrap();
}

#[test]
fn one_is_found_as_it_was_kept_and_is_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let saved = SavedMachines::at(folder.path().join("warm"));
    assert!(saved.find(&key(1)).unwrap().is_none());
    keep(&saved, &key(1));
    let found = saved.find(&key(1)).unwrap().unwrap();
    assert_eq!((found.state(), found.words()), (&b"state"[..], &json!("words")));
    assert_eq!(fs::read(found.written().memory).unwrap(), b"memory");
    for path in [folder.path().join("warm"), found.folder.clone()] {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
    }
    for name in ["memory", "state", "manifest"] {
        assert_eq!(fs::metadata(found.folder.join(name)).unwrap().mode() & 0o777, 0o600);
    }
    assert!(saved.find(&key(2)).unwrap().is_none());
    assert!(matches!(saved.make(&key(1), false), Ok(Begun::There)));
    // Half of one, as a removal that was killed leaves it, is none.
    fs::remove_file(found.folder.join("manifest")).unwrap();
    assert!(begin(&saved, &key(1)).is_some());
}

#[test]
fn what_was_touched_is_broken_and_gone() {
    let folder = tempfile::tempdir().unwrap();
    let saved = SavedMachines::at(folder.path());
    for (name, content) in
        [("memory", "longer than before"), ("memory", "mem"), ("state", "stat"), ("manifest", "{")]
    {
        keep(&saved, &key(1));
        let place = folder.path().join(&key(1).name);
        fs::write(place.join(name), content).unwrap();
        assert!(matches!(saved.find(&key(1)), Err(SavedError::Broken(_))), "{name}");
        assert!(!place.exists());
    }
    keep(&saved, &key(1));
    fs::remove_file(folder.path().join(&key(1).name).join("memory")).unwrap();
    saved.find(&key(1)).unwrap_err();
    assert!(saved.find(&key(1)).unwrap().is_none());
}

#[test]
fn one_maker_at_a_time_and_a_making_that_ends_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let saved = SavedMachines::at(folder.path());
    // A maker that was killed.
    fs::create_dir(folder.path().join(".making-before")).unwrap();
    let making = begin(&saved, &key(1)).unwrap();
    assert!(matches!(saved.make(&key(2), false), Ok(Begun::Busy)));
    drop(making);
    let left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn what_is_brought_in_while_a_machine_boots_makes_it_another() {
    let (one, other) = (key(1).besides(b"agent 1"), key(1).besides(b"agent 2"));
    assert_ne!(one, other);
    assert_eq!((&one.host, &one.family), (&other.host, &other.family));
    let folder = tempfile::tempdir().unwrap();
    let saved = SavedMachines::at(folder.path());
    keep(&saved, &one);
    keep(&saved, &other);
    assert!(saved.find(&one).unwrap().is_none(), "it is of no use any longer");
}

#[test]
fn those_of_another_base_go_and_of_the_same_a_few_stay() {
    let folder = tempfile::tempdir().unwrap();
    let saved = SavedMachines::at(folder.path());
    let other = SavedKey { name: "other".into(), base: "another kernel".into(), ..key(1) };
    let stranger = SavedKey { name: "stranger".into(), family: "a disk".into(), ..other.clone() };
    let elsewhere = SavedKey { name: "elsewhere".into(), host: "a host".into(), ..key(1) };
    for key in [&elsewhere, &other, &stranger] {
        keep(&saved, key);
    }
    for cpus in 1..=6 {
        keep(&saved, &key(cpus));
    }
    assert!(saved.find(&other).unwrap().is_none());
    assert!(saved.find(&elsewhere).unwrap().is_none(), "another QEMU");
    assert!(saved.find(&stranger).unwrap().is_some(), "it boots from something else");
    let found = (1..=6).filter(|cpus| saved.find(&key(*cpus)).unwrap().is_some());
    assert_eq!(found.count(), KEPT);
    assert!(saved.find(&key(6)).unwrap().is_some());
}

#[test]
fn a_machine_with_a_disk_writes_over_it_and_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let saved = SavedMachines::at(folder.path().join("warm"));
    let image = folder.path().join("image");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let key = SavedKey { disk: Some(Disk::raw(&image).unwrap()), ..key(1) };
    let making = begin(&saved, &key).unwrap();
    let over = making.written().disk.unwrap();
    assert!(fs::read(&over).unwrap().starts_with(qcow2::MAGIC));
    making.keep(b"state", &json!(null)).unwrap();
    let found = saved.find(&key).unwrap().unwrap();
    assert!(found.written().disk.unwrap().exists());
    assert_eq!(saved.disks(), std::slice::from_ref(&image));
    fs::write(found.written().disk.unwrap(), "touched").unwrap();
    assert!(matches!(saved.find(&key), Err(SavedError::Broken("its disk was changed"))));
    keep(&saved, &key);
    saved.remove_of(Path::new("/another"));
    assert!(saved.find(&key).unwrap().is_some());
    saved.remove_of(&image);
    assert!(saved.find(&key).unwrap().is_none());
}

#[test]
fn a_memory_that_there_is_no_room_for_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let saved = SavedMachines::at(folder.path());
    let key = SavedKey { memory: 1 << 62, ..key(1) };
    assert!(matches!(saved.make(&key, false), Err(SavedError::Full { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the lock");
}

#[test]
fn a_memory_has_its_room_while_it_is_made_and_gives_back_what_it_does_not_need() {
    let folder = tempfile::tempdir().unwrap();
    let saved = SavedMachines::at(folder.path().join("warm"));
    let making = begin(&saved, &key(1)).unwrap();
    let memory = making.written().memory;
    let there = fs::metadata(&memory).unwrap();
    assert!(there.len() == key(1).memory && there.blocks() * 512 >= there.len());
    making.check_room().unwrap();
    use std::os::unix::fs::FileExt;
    let file = File::options().write(true).open(&memory).unwrap();
    file.write_all_at(&[1; 8192], 1 << 20).unwrap();
    making.keep(b"state", &json!("words")).unwrap();
    let found = saved.find(&key(1)).unwrap().unwrap();
    let kept = fs::metadata(found.written().memory).unwrap();
    assert_eq!(kept.len(), key(1).memory);
    assert!(kept.blocks() * 512 < 1 << 20, "{} blocks", kept.blocks());
}

#[test]
fn what_others_could_have_changed_is_broken() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let saved = SavedMachines::at(folder.path().join("warm"));
    let place = folder.path().join("warm").join(&key(1).name);
    let open = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    let damages: [&dyn Fn(); 3] = [&|| open(&place), &|| open(&place.join("state")), &|| {
        let moved = folder.path().join("moved");
        fs::rename(&place, &moved).unwrap();
        symlink(moved, &place).unwrap();
    }];
    for damage in damages {
        keep(&saved, &key(1));
        damage();
        assert!(matches!(saved.find(&key(1)), Err(SavedError::Broken(_))));
        assert!(saved.find(&key(1)).unwrap().is_none());
    }
    keep(&saved, &key(1));
    open(&folder.path().join("warm"));
    assert!(saved.find(&key(1)).unwrap().is_some());
    assert_eq!(fs::metadata(folder.path().join("warm")).unwrap().mode() & 0o022, 0);
}
