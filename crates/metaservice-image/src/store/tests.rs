use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::Value;

use super::directory::entries;
use super::draft::remove_abandoned;
use super::{ImageName, ImageStore, Removed, StoreError, StoredImage};
use crate::disk::Format;

fn proceed(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn name(text: &str) -> ImageName {
    text.parse().unwrap()
}

struct Fixture {
    directory: tempfile::TempDir,
    store: ImageStore,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::at(directory.path().join("images"));
        Self { directory, store }
    }

    fn file(&self, content: &[u8]) -> PathBuf {
        let path = self.directory.path().join("file.img");
        fs::write(&path, content).unwrap();
        path
    }

    fn import(&self, content: &[u8], as_name: &str) -> Result<StoredImage, StoreError> {
        let notes = Value::from(as_name);
        self.store.import(&self.file(content), &name(as_name), &notes, &mut proceed)
    }

    fn listed(&self) -> usize {
        self.store.list().unwrap().0.len()
    }

    /// The files of the store other than images, names and the lock.
    fn left(&self) -> Vec<String> {
        let names = entries(&self.directory.path().join("images")).unwrap();
        names.into_iter().filter(|name| name.starts_with('.')).collect()
    }
}

#[test]
fn an_image_is_found_by_name_and_digest_and_is_what_came() {
    let fixture = Fixture::new();
    let kept = fixture.import(b"a disk", "one").unwrap();
    assert_eq!(kept.notes, "one");
    assert_eq!(
        (kept.format, fs::read(kept.disk().path()).unwrap()),
        (Format::Raw, b"a disk".into())
    );
    assert_eq!(fs::metadata(kept.disk().path()).unwrap().mode() & 0o777, 0o400);
    assert_eq!(fixture.store.find("one").unwrap(), kept);
    assert_eq!(fixture.store.find(&kept.digest.to_string()).unwrap(), kept);
    assert_eq!(fixture.store.find(&kept.digest.to_string()[..15]).unwrap(), kept);
    for none in ["two", "sha256:", "sha256:0123456", "sha256:00000000", "a/b", "builtin", ""] {
        let error = fixture.store.find(none).unwrap_err();
        assert!(matches!(error, StoreError::NoSuchImage(_)), "{none}: {error}");
    }
    assert!(fixture.store.has("one") && !fixture.store.has("two") && !fixture.store.has("../one"));
    assert_eq!(fixture.left(), Vec::<String>::new());
}

#[test]
fn the_same_content_is_kept_once_and_a_name_leads_to_one_image() {
    let fixture = Fixture::new();
    let one = fixture.import(b"a disk", "one").unwrap();
    let two = fixture.import(b"a disk", "two").unwrap();
    assert_eq!((one.digest.clone(), two.names), (two.digest, vec![name("one"), name("two")]));
    assert_eq!(fixture.import(b"a disk", "one").unwrap().digest, one.digest);
    let other = fixture.import(b"another disk", "one").unwrap_err();
    assert!(matches!(other, StoreError::NameTaken(_)), "{other}");
    assert_eq!(fixture.left(), Vec::<String>::new());
    fixture.import(b"another disk", "alpha").unwrap();
    let listed: Vec<_> = fixture.store.list().unwrap().0.into_iter().map(|i| i.names).collect();
    assert_eq!(listed, [vec![name("alpha")], vec![name("one"), name("two")]]);
}

#[test]
fn an_image_goes_with_its_last_name() {
    let fixture = Fixture::new();
    let image = fixture.import(b"a disk", "one").unwrap();
    fixture.import(b"a disk", "two").unwrap();
    let removed = fixture.store.remove("one").unwrap();
    assert_eq!(removed, Removed { digest: image.digest.clone(), disk: None });
    assert!(image.disk().path().exists());
    let removed = fixture.store.remove("two").unwrap();
    assert_eq!(removed.disk.as_deref(), Some(image.disk().path()));
    assert!(!image.disk().path().parent().unwrap().exists());
    let gone = fixture.store.remove("two").unwrap_err();
    assert!(matches!(gone, StoreError::NoSuchImage(_)), "{gone}");
    assert_eq!((fixture.listed(), fixture.left()), (0, Vec::new()));
}

#[test]
fn what_was_changed_is_not_given_to_a_machine() {
    let fixture = Fixture::new();
    let image = fixture.import(b"a disk", "one").unwrap();
    let disk = image.disk().path().to_owned();
    fs::remove_file(&disk).unwrap();
    fs::write(&disk, "another").unwrap();
    assert!(matches!(fixture.store.find("one"), Err(StoreError::Changed(_))));
    let (images, broken) = fixture.store.list().unwrap();
    assert_eq!((images.len(), &broken[0].names), (0, &vec![name("one")]));
    // An import of the same content replaces the changed image, for each of its names.
    fixture.import(b"a disk", "two").unwrap();
    assert_eq!(fs::read(fixture.store.find("one").unwrap().disk().path()).unwrap(), b"a disk");
    fs::write(disk.with_file_name("manifest"), "{").unwrap();
    fixture.store.remove("two").unwrap();
    fixture.store.remove("one").unwrap();
    assert_eq!((fixture.listed(), fixture.store.list().unwrap().1.len()), (0, 0));
}

#[test]
fn an_image_goes_by_its_digest_with_all_its_names_or_with_none() {
    let fixture = Fixture::new();
    let image = fixture.import(b"a disk", "one").unwrap();
    fixture.import(b"a disk", "two").unwrap();
    let digest = image.digest.to_string();
    assert!(fixture.store.remove(&digest[..20]).unwrap().disk.is_some());
    assert!(!fixture.store.has("one") && !fixture.store.has("two"));
    // The maker was killed before the image had a name.
    fixture.import(b"a disk", "one").unwrap();
    fs::remove_file(fixture.store.directory.link(&name("one"))).unwrap();
    assert_eq!(fixture.listed(), 1);
    fixture.store.remove(&digest).unwrap();
    assert_eq!((fixture.listed(), fixture.left()), (0, Vec::new()));
}

#[test]
fn what_is_about_to_be_kept_is_not_taken_for_abandoned() {
    let fixture = Fixture::new();
    let base = fixture.import(b"a disk", "base").unwrap();
    let draft = fixture.store.draft(&base, &mut proceed).unwrap();
    fs::write(draft.disk().path(), "another").unwrap();
    std::thread::scope(|scope| {
        // Another process changes names: the draft must wait, and is not removed.
        let changing = fixture.store.directory.lock().unwrap();
        let keeping = scope.spawn(|| draft.keep(&name("made"), &Value::Null, &mut proceed));
        while !fixture.left().iter().any(|made| {
            fixture.directory.path().join("images").join(made).join("manifest").exists()
        }) {
            std::thread::yield_now();
        }
        remove_abandoned(&fixture.directory.path().join("images"));
        drop(changing);
        keeping.join().unwrap().unwrap();
    });
    assert_eq!(fixture.listed(), 2);
}

#[test]
fn what_is_no_image_leaves_nothing() {
    let fixture = Fixture::new();
    let mut backed = [0; 104];
    backed[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    backed[15] = 1;
    for content in [&backed[..], b"\x1f\x8b", b"conectix"] {
        assert!(matches!(fixture.import(content, "one"), Err(StoreError::Disk(_))));
    }
    assert!(matches!(fixture.import(b"vhdxfile", "one"), Err(StoreError::Format(Format::Vhdx))));
    let file = fixture.file(&[1; 3 << 20]);
    let stopped =
        fixture.store.import(&file, &name("one"), &Value::Null, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(StoreError::Stopped)), "{stopped:?}");
    assert_eq!((fixture.listed(), fixture.left()), (0, Vec::new()));
}

#[test]
fn a_draft_becomes_another_image_or_nothing() {
    let fixture = Fixture::new();
    let base = fixture.import(b"a disk", "base").unwrap();
    let draft = fixture.store.draft(&base, &mut proceed).unwrap();
    fs::write(draft.disk().path(), "QFI\u{fb} is what a guest wrote").unwrap();
    let made = draft.keep(&name("made"), &Value::Null, &mut proceed).unwrap();
    // The format stays: a header that a guest wrote does not count.
    assert_eq!(made.format, Format::Raw);
    assert_ne!(made.digest, base.digest);
    assert_eq!(fs::read(base.disk().path()).unwrap(), b"a disk");
    let draft = fixture.store.draft(&base, &mut proceed).unwrap();
    fs::write(draft.disk().path(), "other").unwrap();
    let taken = draft.keep(&name("made"), &Value::Null, &mut proceed).unwrap_err();
    assert!(matches!(taken, StoreError::NameTaken(_)), "{taken}");
    drop(fixture.store.draft(&base, &mut proceed).unwrap());
    assert_eq!((fixture.listed(), fixture.left().len()), (2, 0));
}

#[test]
fn what_a_killed_maker_left_goes_and_what_a_living_one_makes_stays() {
    let fixture = Fixture::new();
    let base = fixture.import(b"a disk", "base").unwrap();
    let living = fixture.store.draft(&base, &mut proceed).unwrap();
    let abandoned = fixture.directory.path().join("images/.making-abandoned");
    fs::create_dir(&abandoned).unwrap();
    fs::write(abandoned.join("lock"), "").unwrap();
    fixture.import(b"another", "other").unwrap();
    assert!(!abandoned.exists() && living.disk().path().exists());
    assert_eq!(fixture.left().len(), 1);
}
