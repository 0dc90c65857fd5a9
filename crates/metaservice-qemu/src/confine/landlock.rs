//! Confinement without mounts: Landlock rules for a thread and its children.
//!
//! Owns the rules. Landlock has no rules that deny. So to hide a path, its neighbours are allowed
//! one by one. A file that is created there later is hidden too. Names of hidden files stay
//! visible.

#[cfg(test)]
use std::path::Path;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};

use super::handshake::Held;
use super::needs::{Exported, Needs};

/// The rights that the rules handle: those of Linux 6.2, as far as the kernel has them.
const RIGHTS: ABI = ABI::V3;

/// Whether this host has Landlock.
pub(super) fn is_there() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// Rules that allow all files, but no signals to other processes, if the host supports that (Linux
/// 6.12). A user namespace does not block signals: the kernel compares users, and QEMU has the user
/// of its caller.
pub(super) fn no_signals() -> Option<RulesetCreated> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::Signal | Scope::AbstractUnixSocket)
        .and_then(Ruleset::create)
        .ok()
}

/// The rules for a machine, created before the fork. `held` has the shared directories, if they are
/// in mounts of their own.
pub(super) fn rules(needs: &Needs, held: Option<&Held>) -> Result<RulesetCreated, RulesetError> {
    let read = AccessFs::from_read(RIGHTS);
    let open: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let scratch = AccessFs::from_all(RIGHTS) & !AccessFs::Execute;
    let shared = scratch & !AccessFs::MakeChar & !AccessFs::MakeBlock;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(RIGHTS))?
        .scope(Scope::Signal | Scope::AbstractUnixSocket)?
        .create()?
        .add_rules(path_beneath_rules(needs.system(), read))?
        .add_rules(path_beneath_rules(&needs.reads, read))?
        .add_rules(path_beneath_rules(&needs.devices, open))?;
    for path in &needs.writes {
        let rights = if path.is_dir() { scratch } else { open };
        rules = rules.add_rules(path_beneath_rules([path], rights))?;
    }
    let reads = AccessFs::ReadFile | AccessFs::ReadDir;
    if let Some(held) = held {
        // Only a path through these mounts leads through this directory. They are read-only where
        // the guest must not write, and hide what is hidden. But QEMU is not in their namespace, so
        // it could rename or remove what they hide: it may not, in a directory with such a path.
        let hides = |one: &&Exported| !(one.hidden.is_empty() && one.mounts.is_empty());
        let writable = || needs.shared().filter(|exported| exported.writable);
        let open = writable().next().is_some() && writable().find(hides).is_none();
        let rights = if open { shared } else { reads };
        rules = rules.add_rule(PathBeneath::new(&held.directory, rights))?;
        let neighbours = writable().filter(|_| !open).flat_map(around);
        return rules.add_rules(path_beneath_rules(neighbours, shared));
    }
    for exported in needs.shared() {
        let rights = if exported.writable { shared } else { reads };
        rules = rules
            .add_rules(path_beneath_rules([&exported.directory], AccessFs::ReadDir))?
            .add_rules(path_beneath_rules(around(exported), rights))?;
    }
    // QEMU opens the directory of each device.
    rules.add_rules(path_beneath_rules(&needs.empty, AccessFs::ReadDir))
}

/// All of the directory except hidden paths and other mounts. QEMU cannot tell a mount of the same
/// file system from a directory.
fn around(exported: &Exported) -> Vec<PathBuf> {
    let mounts = exported.mounts.iter().filter(|mount| !mount.shown).map(|mount| &mount.at);
    let left_out: Vec<&PathBuf> = exported.hidden.iter().chain(mounts).collect();
    let (mut allowed, mut open) = (Vec::new(), vec![exported.directory.clone()]);
    while let Some(directory) = open.pop() {
        if !left_out.iter().any(|hidden| hidden.starts_with(&directory)) {
            allowed.push(directory);
            continue;
        }
        let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        open.extend(entries.map(|entry| entry.path()).filter(|path| {
            let is_link = path.is_symlink();
            !is_link && !left_out.contains(&path)
        }));
    }
    allowed
}

/// As [`around`], for a test.
#[cfg(test)]
pub(super) fn around_directory(directory: &Path, hidden: &[PathBuf]) -> Vec<PathBuf> {
    let (directory, hidden) = (directory.to_owned(), hidden.to_vec());
    around(&Exported { directory, writable: false, hidden, mounts: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::super::mounts::Mount;
    use super::*;

    #[test]
    fn what_is_hidden_is_left_out_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["a/keys", "a/other", "b"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        std::fs::write(path("file"), "x").unwrap();
        std::os::unix::fs::symlink(path("a/keys"), path("link")).unwrap();
        let mut found = around_directory(directory.path(), &[path("a/keys")]);
        found.sort();
        assert_eq!(found, [path("a/other"), path("b"), path("file")]);
        assert_eq!(around_directory(directory.path(), &[]), [directory.path()]);
        let mount = |shown| Mount { at: path("b"), shown };
        let with = |mounts| Exported {
            directory: directory.path().to_owned(),
            writable: false,
            hidden: vec![],
            mounts,
        };
        assert!(
            !around(&with(vec![mount(false)])).iter().any(|found| path("b").starts_with(found))
        );
        assert_eq!(around(&with(vec![mount(true)])), [directory.path()]);
    }
}
