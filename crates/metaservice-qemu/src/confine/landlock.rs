//! What a thread and its children may open, where no mounts can be made: Landlock.
//!
//! Owns the rules. They allow, and cannot except: around a hidden path its neighbours are allowed
//! one by one, so what comes there later is hidden too. Names stay visible below a folder.

#[cfg(test)]
use std::path::Path;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};

use super::needs::{Exported, Needs};

/// The rights that are taken away where they are not given: those of Linux 6.2, as far as there.
const RIGHTS: ABI = ABI::V3;

/// Whether this host has it.
pub(super) fn is_there() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// Rules that open everything and keep signals to one's own processes, where the host has them
/// (Linux 6.12). A user namespace does not: the kernel compares users, and QEMU's is the caller's.
pub(super) fn no_signals() -> Option<RulesetCreated> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::Signal | Scope::AbstractUnixSocket)
        .and_then(Ruleset::create)
        .ok()
}

/// The rules for a machine, made before anything is forked.
pub(super) fn rules(needs: &Needs) -> Result<RulesetCreated, RulesetError> {
    let read = AccessFs::from_read(RIGHTS);
    let open: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let scratch = AccessFs::from_all(RIGHTS) & !AccessFs::Execute;
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
    if let Some(exported) = &needs.exported {
        rules =
            rules.add_rules(path_beneath_rules([&exported.folder], AccessFs::ReadDir))?.add_rules(
                path_beneath_rules(around(exported), AccessFs::ReadFile | AccessFs::ReadDir),
            )?;
    }
    Ok(rules)
}

/// All of the folder but what is hidden, and other mounts: QEMU does not tell one of the same file
/// system from a folder.
fn around(exported: &Exported) -> Vec<PathBuf> {
    let mounts = exported.mounts.iter().filter(|mount| !mount.shown).map(|mount| &mount.at);
    let left_out: Vec<&PathBuf> = exported.hidden.iter().chain(mounts).collect();
    let (mut allowed, mut open) = (Vec::new(), vec![exported.folder.clone()]);
    while let Some(folder) = open.pop() {
        if !left_out.iter().any(|hidden| hidden.starts_with(&folder)) {
            allowed.push(folder);
            continue;
        }
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        open.extend(entries.map(|entry| entry.path()).filter(|path| {
            let is_link = path.is_symlink();
            !is_link && !left_out.contains(&path)
        }));
    }
    allowed
}

/// As [`around`], for a test of the selection.
#[cfg(test)]
pub(super) fn around_folder(folder: &Path, hidden: &[PathBuf]) -> Vec<PathBuf> {
    let (folder, hidden) = (folder.to_owned(), hidden.to_vec());
    around(&Exported { folder, hidden, mounts: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::super::mounts::Mount;
    use super::*;

    #[test]
    fn what_is_hidden_is_left_out_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a/keys", "a/other", "b"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        std::fs::write(path("file"), "x").unwrap();
        std::os::unix::fs::symlink(path("a/keys"), path("link")).unwrap();
        let mut found = around_folder(folder.path(), &[path("a/keys")]);
        found.sort();
        assert_eq!(found, [path("a/other"), path("b"), path("file")]);
        assert_eq!(around_folder(folder.path(), &[]), [folder.path()]);
        let mount = |shown| Mount { at: path("b"), shown };
        let with = |mounts| Exported { folder: folder.path().to_owned(), hidden: vec![], mounts };
        assert!(
            !around(&with(vec![mount(false)])).iter().any(|found| path("b").starts_with(found))
        );
        assert_eq!(around(&with(vec![mount(true)])), [folder.path()]);
    }
}
