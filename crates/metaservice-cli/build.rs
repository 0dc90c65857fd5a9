//! Builds the static agent that the command line tool carries inside.
//!
//! A plain `cargo build` has no way to say "build that other binary first, for a static
//! target", so it is said here: cargo is run once more, into a folder of its own (the
//! outer cargo holds the lock of the usual one). `METASERVICE_AGENT=FILE` takes a binary
//! that is there already, for packagers and for other targets.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=METASERVICE_AGENT");
    let agent = match env::var_os("METASERVICE_AGENT") {
        Some(path) => PathBuf::from(path),
        None => build(),
    };
    assert!(agent.is_file(), "the guest agent is not at {}", agent.display());
    println!("cargo::rerun-if-changed={}", agent.display());
    println!("cargo::rustc-env=METASERVICE_AGENT={}", agent.display());
}

fn build() -> PathBuf {
    let variable = |name| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let crates = Path::new(&variable("CARGO_MANIFEST_DIR")).join("..");
    for part in [
        "metaservice-guest/src",
        "metaservice-guest/Cargo.toml",
        "metaservice-archive/src",
        "metaservice-archive/Cargo.toml",
        "metaservice-private/src",
        "metaservice-private/Cargo.toml",
        "metaservice-protocol/src",
        "../Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", crates.join(part).display());
    }
    let target = variable("TARGET");
    assert!(target.contains("linux"), "guests run Linux: there is no agent for {target}");
    // OUT_DIR is TARGET_FOLDER/PROFILE/build/CRATE-HASH/out: one agent serves all profiles.
    let out = PathBuf::from(variable("OUT_DIR"));
    let folder = out.ancestors().nth(4).map_or_else(|| out.clone(), |f| f.join("agent"));
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    let status = Command::new(variable("CARGO"))
        .args(["build", "--package", "metaservice-guest", "--bin", "metaservice-guest"])
        .args(["--profile", "agent", "--target", &target, "--target-dir"])
        .arg(&folder)
        .arg("--manifest-path")
        .arg(crates.join("../Cargo.toml"))
        // Always at the same addresses: an emulator that finds code where it was before has it
        // translated already, which halves the time of each process of ours.
        .env(flags, "-C target-feature=+crt-static -C relocation-model=static")
        // What the outer build is told is not meant for this one.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("building the guest agent failed: {status}"),
        Err(error) => panic!("cannot run cargo to build the guest agent: {error}"),
    }
    let agent = folder.join(&target).join("agent/metaservice-guest");
    if target == variable("HOST") {
        check(&agent);
    }
    agent
}

/// Starts the agent here. Some linkers make static programs that crash at once, for example mold
/// 1.10 of Debian 12; in a guest, that is a kernel panic.
fn check(agent: &Path) {
    let finished = Command::new(agent).arg("--version").output();
    let why = match finished {
        Ok(finished) if finished.status.success() => return,
        Ok(finished) => finished.status.to_string(),
        Err(error) => error.to_string(),
    };
    panic!(
        "the guest agent {} was built but does not start: {why}\n\
         If a cargo configuration file sets another linker (`-fuse-ld`), remove that, or link an \
         agent without it and give its path in METASERVICE_AGENT.",
        agent.display()
    );
}
