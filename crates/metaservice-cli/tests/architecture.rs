//! The rooms depend on each other as ARCHITECTURE.md says, and in no other way.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

const ARROWS: [(&str, &[&str]); 10] = [
    ("metaservice-protocol", &[]),
    ("metaservice-nic", &[]),
    ("metaservice-archive", &[]),
    ("metaservice-private", &[]),
    ("metaservice-qemu", &["metaservice-private"]),
    ("metaservice-image", &["metaservice-private"]),
    // The harnesses of tests: a dev-dependency of the others, never published.
    ("metaservice-testing", &["metaservice", "metaservice-qemu"]),
    ("metaservice", &["metaservice-private", "metaservice-protocol"]),
    ("metaservice-guest", &["metaservice-archive", "metaservice-private", "metaservice-protocol"]),
    (
        "metaservice-cli",
        &[
            "metaservice",
            "metaservice-archive",
            "metaservice-image",
            "metaservice-nic",
            "metaservice-private",
            "metaservice-qemu",
        ],
    ),
];

/// The crates of ours that a manifest names as dependencies.
fn dependencies(manifest: &str) -> BTreeSet<&str> {
    let name = |line: &'_ str| line.split(['.', ' ', '=']).next().map(str::len);
    let mut within = false;
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            within = line == "[dependencies]"
                || line.starts_with("[target")
                || line == "[build-dependencies]";
        } else if within && line.starts_with("metaservice") {
            found.insert(&line[..name(line).unwrap()]);
        }
    }
    found
}

#[test]
fn arrows_point_down_only() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let present: BTreeSet<String> = std::fs::read_dir(crates)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(present, ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect());
    for (name, expected) in ARROWS {
        let manifest = std::fs::read_to_string(crates.join(name).join("Cargo.toml")).unwrap();
        let expected: BTreeSet<&str> = expected.iter().copied().collect();
        assert_eq!(dependencies(&manifest), expected, "the arrows of {name}");
    }
}
