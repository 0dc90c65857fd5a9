//! No archive changes a file outside of the destination or leaves a temporary file in it.

use std::fs;
use std::path::Path;

use metaservice_archive::{ExtractOptions, Extractor};

fn leftovers(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.flatten().any(|entry| {
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        entry.file_name().to_string_lossy().ends_with(".part")
            || directory && leftovers(&entry.path())
    })
}

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(data: &[u8]) {
    let ground = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let (inside, outside) = (ground.path().join("in"), ground.path().join("out"));
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    let mut options = ExtractOptions::default();
    options.limits.members = 64;
    options.limits.bytes = 1 << 20;
    options.limits.directory_names = 4096;
    let extracted = Extractor::open(&inside, options).unwrap().extract(data);
    assert_eq!(fs::read(outside.join("kept")).unwrap(), b"kept");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_dir(ground.path()).unwrap().count(), 2);
    assert!(!leftovers(&inside) || data.windows(5).any(|bytes| bytes == b".part"));
    if let Ok(counts) = extracted {
        assert!(counts.bytes <= data.len() as u64);
    }
}
