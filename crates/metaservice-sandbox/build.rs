//! Builds the static agent that this crate embeds.
//!
//! Cargo cannot depend on a program for another target. So this script runs cargo again, on the
//! package `metaservice-guest`, whose library says where its source is. It uses a target directory
//! of its own, because the outer cargo holds the lock of the usual one.
//!
//! `METASERVICE_AGENT=FILE` embeds a program that exists already, for packagers and other targets.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

fn main() {
    println!("cargo::rerun-if-env-changed=METASERVICE_AGENT");
    let out = PathBuf::from(variable("OUT_DIR"));
    let agent = match env::var_os("METASERVICE_AGENT") {
        Some(path) => PathBuf::from(path),
        None if env::var_os("DOCS_RS").is_some() => empty(&out),
        None => build(&Source::find(&out)),
    };
    assert!(agent.is_file(), "the guest agent is not at {}", agent.display());
    println!("cargo::rerun-if-changed={}", agent.display());
    println!("cargo::rustc-env=METASERVICE_AGENT={}", agent.display());
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

/// No agent: docs.rs has no network, and documents without running.
fn empty(out: &Path) -> PathBuf {
    let agent = out.join("metaservice-guest");
    fs::write(&agent, "").expect("cannot write to OUT_DIR");
    agent
}

/// Where the agent's source is, and where it is built.
struct Source {
    package: PathBuf,
    target_directory: PathBuf,
}

impl Source {
    fn find(out: &Path) -> Self {
        let package = Path::new(metaservice_guest_source::MANIFEST_DIR);
        // Only a package of a registry has this file.
        if package.join("Cargo.toml.orig").is_file() {
            Self::copied(package, out)
        } else {
            Self::in_checkout(package, out)
        }
    }

    /// In a checkout, the workspace's lock file applies, and one agent serves all profiles.
    fn in_checkout(package: &Path, out: &Path) -> Self {
        let crates = package.join("..");
        for member in ["guest", "archive", "private", "protocol"] {
            let member = crates.join(format!("metaservice-{member}"));
            println!("cargo::rerun-if-changed={}", member.join("src").display());
            println!("cargo::rerun-if-changed={}", member.join("Cargo.toml").display());
        }
        println!("cargo::rerun-if-changed={}", package.join("agent.toml").display());
        println!("cargo::rerun-if-changed={}", crates.join("../Cargo.lock").display());
        // OUT_DIR is TARGET_DIRECTORY/PROFILE/build/PACKAGE-HASH/out.
        let shared = out.ancestors().nth(4).expect("OUT_DIR has four parents");
        Self { package: package.to_owned(), target_directory: shared.join("agent") }
    }

    /// A package of a registry is read-only, and cargo may write its lock file. So it is copied.
    fn copied(package: &Path, out: &Path) -> Self {
        println!("cargo::rerun-if-changed={}", package.display());
        let copy = out.join("metaservice-guest");
        let copied = copy_directory(package, &copy).and_then(|()| {
            // OUT_DIR may be below the workspace of another package.
            let manifest = fs::read_to_string(package.join("Cargo.toml"))?;
            fs::write(copy.join("Cargo.toml"), manifest + "\n[workspace]\n")
        });
        copied.unwrap_or_else(|error| panic!("cannot copy {}: {error}", package.display()));
        Self { package: copy, target_directory: out.join("agent") }
    }
}

fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            // The content without the permissions: the copy is not read-only.
            fs::write(target, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

fn build(source: &Source) -> PathBuf {
    let target = variable("TARGET");
    assert!(target.contains("linux"), "guests run Linux: there is no agent for {target}");
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    let status = Command::new(variable("CARGO"))
        .args(["build", "--bin", "metaservice-guest", "--profile", "agent", "--config"])
        .arg(source.package.join("agent.toml"))
        .args(["--target", &target, "--target-dir"])
        .arg(&source.target_directory)
        .arg("--manifest-path")
        .arg(source.package.join("Cargo.toml"))
        // Static, and always at the same addresses: an emulator reuses its translation of code that
        // is at the same address, which halves the time of each process of the agent.
        .env(flags, "-C target-feature=+crt-static -C relocation-model=static")
        // The flags of the outer build are not for this one.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("building the guest agent failed: {status}"),
        Err(error) => panic!("cannot run cargo to build the guest agent: {error}"),
    }
    let agent = source.target_directory.join(&target).join("agent/metaservice-guest");
    if target == variable("HOST") {
        check(&agent);
    }
    agent
}

/// Starts the agent here. Some linkers make static programs that crash at once, for example mold
/// 1.10 of Debian 12. In a guest, that is a kernel panic.
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
