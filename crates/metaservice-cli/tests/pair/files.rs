//! Files and directories in both directions, also with cut connections.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use futures_util::TryStreamExt;
use metaservice::{ActionError, Destination, EntryKind, FailureCode, Form, ListError, WriteError};
use metaservice_archive::{ExtractOptions, Extractor, Packer};
use tokio::io::AsyncReadExt;

use metaservice_testing::pair::Pair;

use crate::AGENT;

/// Returns bytes that do not repeat and do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def0_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Returns the offsets at which connections are cut: some before any data, some late. Six early
/// cuts in a row would exceed the retries.
fn cuts() -> Vec<u64> {
    vec![0, 90_000, 1, 300_001, 16_000, 1_000_000, 5, 40_000, 2_000_000, 123_456]
}

/// Creates a tree with entries of many kinds.
fn make_tree(root: &Path) {
    for n in 0..60 {
        let directory = root.join(format!("d{}/e{}", n % 5, n % 7));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(format!("file {n}")), noise(n * 3000)).unwrap();
    }
    std::fs::write(root.join("d0/exact"), noise(512)).unwrap();
    std::fs::write(root.join("d0/empty"), b"").unwrap();
    std::fs::write(root.join("d0/zeros"), vec![0; 2_000_000]).unwrap();
    std::fs::set_permissions(root.join("d0/exact"), std::fs::Permissions::from_mode(0o751))
        .unwrap();
    std::fs::set_permissions(root.join("d1"), std::fs::Permissions::from_mode(0o705)).unwrap();
    symlink("../d0/exact", root.join("d1/link")).unwrap();
    std::fs::hard_link(root.join("d0/exact"), root.join("d2/same")).unwrap();
}

type Tree = BTreeMap<String, (u32, i64, i64, Vec<u8>)>;

fn look(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let status = std::fs::symlink_metadata(&path).unwrap();
        let content = if status.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if status.is_symlink() {
            std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            std::fs::read(&path).unwrap()
        };
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        // Not every program keeps the time of a link.
        let (seconds, nanoseconds) =
            if status.is_symlink() { (0, 0) } else { (status.mtime(), status.mtime_nsec()) };
        tree.insert(name, (status.mode(), seconds, nanoseconds, content));
    }
    tree
}

fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (look(a), look(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, one) in &a {
        let other = &b[name];
        assert_eq!((one.0, one.1, one.2), (other.0, other.1, other.2), "{name:?}");
        assert!(one.3 == other.3, "the content of {name:?}");
    }
}

async fn read_all(pair: &Pair, path: &Path, form: Form) -> Vec<u8> {
    let mut reading = pair.service.read(path.to_str().unwrap()).form(form).open().await.unwrap();
    let mut all = Vec::new();
    reading.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn a_file_comes_out_byte_by_byte_however_often_it_is_cut() {
    for cuts in [vec![], cuts()] {
        let pair = Pair::cut(&AGENT, cuts).await;
        let path = pair.directory.path().join("file");
        let content = noise(6_000_000);
        std::fs::write(&path, &content).unwrap();
        assert!(read_all(&pair, &path, Form::Any).await == content);
        let mut artifact = pair.service.read(path.to_str().unwrap()).spool().await.unwrap();
        let mut fetched = Vec::new();
        artifact.read_to_end(&mut fetched).await.unwrap();
        assert!(fetched == content);
        let range = pair.service.read(path.to_str().unwrap()).range(1000, Some(10));
        let mut range = range.open().await.unwrap();
        assert_eq!(range.head().unwrap().size, Some(6_000_000));
        assert_eq!(range.try_next().await.unwrap().unwrap(), content[1000..1010]);
        assert_eq!(range.try_next().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_directory_comes_out_with_all_its_attributes_however_often_it_is_cut() {
    let pair = Pair::cut(&AGENT, cuts()).await;
    let (from, to) = (pair.directory.path().join("from"), pair.directory.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    std::fs::create_dir(&to).unwrap();
    make_tree(&from);
    let archive = read_all(&pair, &from, Form::Archive).await;
    let mut options = ExtractOptions::default();
    options.new = true;
    Extractor::open(&to, options).unwrap().extract(&archive[..]).unwrap();
    assert_same(&from, &to);
}

#[tokio::test]
async fn a_file_goes_in_byte_by_byte_however_often_it_is_cut() {
    for cuts in [vec![], cuts()] {
        let pair = Pair::cut(&AGENT, cuts).await;
        let path = pair.directory.path().join("file");
        let content = noise(6_000_000);
        let mut destination = Destination::file(path.to_str().unwrap());
        destination.mode = Some(0o640);
        destination.mtime_ns = Some(1_234_567_890_123_456_789);
        let length = pair.service.write(destination, &content[..]).await.unwrap();
        assert_eq!(length, 6_000_000);
        assert!(std::fs::read(&path).unwrap() == content);
        let status = std::fs::metadata(&path).unwrap();
        assert_eq!(status.mode() & 0o7777, 0o640);
        assert_eq!((status.mtime(), status.mtime_nsec()), (1_234_567_890, 123_456_789));
        let left: Vec<_> = std::fs::read_dir(pair.directory.path()).unwrap().collect();
        assert_eq!(left.len(), 3, "the file, the agent's state and what it said: {left:?}");
    }
}

#[tokio::test]
async fn a_directory_goes_in_with_all_its_attributes_however_often_it_is_cut() {
    let pair = Pair::cut(&AGENT, cuts()).await;
    let (from, to) = (pair.directory.path().join("from"), pair.directory.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    make_tree(&from);
    let mut packer = Packer::open(&from).unwrap();
    let mut archive = Vec::new();
    while let Some(block) = packer.next_block().unwrap() {
        archive.extend(block.bytes);
    }
    pair.service.write(Destination::directory(to.to_str().unwrap()), &archive[..]).await.unwrap();
    assert_same(&from, &to);
}

#[tokio::test]
async fn links_are_themselves_or_what_they_lead_to_as_asked() {
    let pair = Pair::idle(&AGENT).await;
    let at = |name: &str| pair.directory.path().join(name);
    std::fs::write(at("file"), "content").unwrap();
    std::fs::create_dir(at("dir")).unwrap();
    for (link, target) in [("to-file", "file"), ("to-dir", "dir"), ("to-nothing", "none")] {
        std::os::unix::fs::symlink(target, at(link)).unwrap();
        let path = at(link).to_str().unwrap().to_owned();
        let read = |follow| pair.service.read(&*path).form(Form::Any).follow(follow);
        let itself = read(false).open().await.unwrap().head().unwrap();
        assert!(itself.link && itself.form == Form::Archive, "{link}");
        let followed = read(true).open().await.map(|reading| reading.head().unwrap());
        match link {
            "to-file" => assert_eq!(followed.unwrap().size, Some(7)),
            "to-dir" => assert!(!followed.unwrap().link),
            _ => assert!(followed.is_err()),
        }
    }
}

#[tokio::test]
async fn set_id_bits_go_in_when_they_are_asked_for_and_holes_stay() {
    let pair = Pair::idle(&AGENT).await;
    let at = |name: &str| pair.directory.path().join(name);
    std::fs::create_dir(at("from")).unwrap();
    std::fs::File::create(at("from/file")).unwrap().set_len(32 << 20).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    let chmod = |name: &str, mode| {
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod("from/file", 0o4755);
    chmod("from", 0o1777);
    let mut packer = Packer::open(&at("from")).unwrap();
    let mut archive = Vec::new();
    while let Some(block) = packer.next_block().unwrap() {
        archive.extend(block.bytes);
    }
    for (to, set_id, expected) in [("without", false, 0o755), ("with", true, 0o4755)] {
        let to = at(to);
        let mut destination = Destination::directory(to.to_str().unwrap());
        destination.set_id = set_id;
        pair.service.write(destination, &archive[..]).await.unwrap();
        assert_eq!((mode(&to), mode(&to.join("file"))), (0o1777, expected));
        let file = std::fs::metadata(to.join("file")).unwrap();
        assert_eq!(file.len(), 32 << 20);
        assert!(file.blocks() * 512 < 1 << 20, "{} blocks", file.blocks());
    }
    let alone = at("alone");
    let destination = Destination::file(alone.to_str().unwrap());
    pair.service.write(destination, &vec![0; 32 << 20][..]).await.unwrap();
    let file = std::fs::metadata(&alone).unwrap();
    assert_eq!(file.len(), 32 << 20);
    assert!(file.blocks() * 512 < 1 << 20, "{} blocks", file.blocks());
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_with_its_reason_and_leaves_nothing() {
    let pair = Pair::idle(&AGENT).await;
    let directory = pair.directory.path();
    let code = async |destination: Destination| {
        let content = noise(3_000_000);
        match pair.service.write(destination, &content[..]).await {
            Err(
                WriteError::NotFound(failure) | WriteError::Action(ActionError::Failed(failure)),
            ) => failure.code,
            other => panic!("{other:?}"),
        }
    };
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    assert_eq!(code(Destination::file(path("none/file"))).await, FailureCode::NotFound);
    assert_eq!(code(Destination::file(path(""))).await, FailureCode::NotAFile);
    let named = |name: &str| {
        let mut destination = Destination::file(path(""));
        destination.name = Some(name.into());
        destination
    };
    for name in ["../x", "..", ".", "", "a/b"] {
        assert_eq!(code(named(name)).await, FailureCode::Invalid, "{name}");
    }
    // Noise is not an archive.
    assert_eq!(code(Destination::directory(path("new"))).await, FailureCode::Invalid);
    std::fs::write(directory.join("plain"), b"x").unwrap();
    assert_eq!(code(Destination::directory(path("plain"))).await, FailureCode::NotADirectory);
    let hidden = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(hidden.into_iter().all(|name| !name.to_str().unwrap().starts_with(".metaservice")));

    pair.service.write(named("inside"), &b"content"[..]).await.unwrap();
    assert_eq!(std::fs::read(directory.join("inside")).unwrap(), b"content");
}

#[tokio::test]
async fn a_directory_is_listed() {
    let pair = Pair::idle(&AGENT).await;
    let directory = pair.directory.path().join("tree");
    std::fs::create_dir(&directory).unwrap();
    make_tree(&directory);
    let mut lines =
        pair.service.list(directory.to_str().unwrap()).recursive(true).entries().await.unwrap();
    let mut seen = BTreeMap::new();
    while let Some(entry) = lines.try_next().await.unwrap() {
        seen.insert(entry.path.clone(), entry);
    }
    let expected: Vec<String> =
        look(&directory).into_keys().filter(|name| !name.is_empty()).collect();
    assert_eq!(seen.keys().cloned().collect::<Vec<_>>(), expected);
    assert_eq!(seen["d1/link"].kind, EntryKind::Link);
    assert_eq!((seen["d0/exact"].mode, seen["d0/exact"].links), (0o751, 2));
    let missing = pair.service.list("/none").entries().await.map(drop);
    assert!(matches!(missing, Err(ListError::NotFound(_))));
}
