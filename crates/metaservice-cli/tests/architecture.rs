//! Checks that the crates depend on each other only as ARCHITECTURE.md says.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Each published crate, and the crates of the workspace that it may use in its code and its build.
const ARROWS: [(&str, &[&str]); 14] = [
    ("metaservice-protocol", &[]),
    ("metaservice-private", &[]),
    ("metaservice-archive", &["metaservice-private"]),
    ("metaservice-egress", &[]),
    ("metaservice-nic", &["metaservice-private"]),
    ("metaservice-gateway", &["metaservice-egress", "metaservice-nic"]),
    ("metaservice-image", &["metaservice-private"]),
    ("metaservice-qemu", &["metaservice-private"]),
    ("metaservice", &["metaservice-private", "metaservice-protocol"]),
    ("metaservice-guest", &["metaservice-archive", "metaservice-private", "metaservice-protocol"]),
    (
        "metaservice-sandbox",
        &[
            "metaservice",
            "metaservice-archive",
            "metaservice-egress",
            "metaservice-gateway",
            "metaservice-guest",
            "metaservice-image",
            "metaservice-nic",
            "metaservice-private",
            "metaservice-qemu",
        ],
    ),
    ("metaservice-fleet", &["metaservice-private", "metaservice-sandbox"]),
    ("metaservice-web", &["metaservice", "metaservice-protocol"]),
    (
        "metaservice-cli",
        &[
            "metaservice",
            "metaservice-egress",
            "metaservice-fleet",
            "metaservice-image",
            "metaservice-nic",
            "metaservice-private",
            "metaservice-qemu",
            "metaservice-sandbox",
            "metaservice-web",
        ],
    ),
];

/// The crates of the workspace that are published, with their dependencies but those of tests.
fn published() -> BTreeMap<String, BTreeSet<String>> {
    let mut command = Command::new(env!("CARGO"));
    command.args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
        "--manifest-path",
    ]);
    let output = command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    // `publish` is null for "anywhere", and an empty list for `publish = false`.
    let packages = packages.filter(|package| package["publish"].is_null());
    let dependencies = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        let local = all.filter(|one| one["path"].is_string() && one["kind"] != "dev");
        local.map(|one| word(&one["name"])).collect()
    };
    packages.map(|package| (word(&package["name"]), dependencies(package))).collect()
}

#[test]
fn crates_use_only_the_crates_below_them() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let published = published();
    assert!(published.len() >= 9, "{published:?}");
    for (name, dependencies) in published {
        let allowed = arrows.get(name.as_str()).unwrap_or_else(|| {
            panic!("{name} is not in ARROWS: say there what it may use, and in ARCHITECTURE.md")
        });
        for dependency in dependencies {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}: see ARCHITECTURE.md"
            );
        }
    }
}
