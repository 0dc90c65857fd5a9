//! System calls that a QEMU with a writable share must not make as the guest wants them.
//!
//! Owns two filters. They do not defend against a QEMU that a guest has broken into, but decide
//! what QEMU does for a guest that only asks:
//!
//! - A file of the guest belongs to the user of this process. With a set-user-id or set-group-id
//!   bit, it would give the rights of that user to all others: "not permitted".
//! - A change of the owner does nothing, and succeeds. Most users cannot give files away, and
//!   programs such as `tar` would fail.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// The set-user-id and the set-group-id bit.
const SET_ID: [u64; 2] = [0o4000, 0o2000];

/// Flags with which an open creates a file: O_CREAT, and the part of O_TMPFILE that is its own.
const CREATES: [u64; 2] = [0o100, 0o20_000_000];

/// Newer than the other numbers: all architectures have the same.
const FCHMODAT2: i64 = 452;

/// Calls that set a mode, and the number of the argument.
const MODES: &[(i64, u8)] = &[
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
    (libc::SYS_mknodat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
];

/// Calls that open a file, and the numbers of the flags and of the mode.
const OPENS: &[(i64, u8, u8)] = &[
    (libc::SYS_openat, 2, 3),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1, 2),
];

/// Calls that change the owner.
const OWNERS: &[i64] = &[
    libc::SYS_fchown,
    libc::SYS_fchownat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
];

/// The filters, for the thread that starts QEMU.
pub(super) fn of_writable_shares() -> Result<[BpfProgram; 2], BackendError> {
    let mut modes: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for &(call, mode) in MODES {
        let rules = SET_ID.iter().map(|bit| SeccompRule::new(vec![has(mode, *bit)?]));
        modes.insert(call, rules.collect::<Result<_, _>>()?);
    }
    for &(call, flags, mode) in OPENS {
        let both = CREATES.iter().flat_map(|flag| SET_ID.iter().map(move |bit| (*flag, *bit)));
        let rules =
            both.map(|(flag, bit)| SeccompRule::new(vec![has(flags, flag)?, has(mode, bit)?]));
        modes.insert(call, rules.collect::<Result<_, _>>()?);
    }
    let owners = OWNERS.iter().map(|call| (*call, Vec::new())).collect();
    let not_permitted = u32::try_from(libc::EPERM).unwrap_or(1);
    Ok([filter(modes, not_permitted)?, filter(owners, 0)?])
}

/// A filter by which these calls do nothing and return this error. 0 is success.
fn filter(calls: BTreeMap<i64, Vec<SeccompRule>>, error: u32) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(calls, SeccompAction::Allow, SeccompAction::Errno(error), arch)?.try_into()
}

/// Whether an argument has a bit.
fn has(argument: u8, bit: u64) -> Result<SeccompCondition, BackendError> {
    let set = SeccompCmpOp::MaskedEq(bit);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, set, bit)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_thread_with_the_filters_sets_no_bits_and_no_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let filtered = std::thread::spawn(move || {
            for program in of_writable_shares().unwrap() {
                seccompiler::apply_filter(&program).unwrap();
            }
            let create = |mode| File::options().write(true).create(true).mode(mode).open(&path);
            for mode in [0o4755, 0o2755, 0o6777] {
                let refused = create(mode).map(drop).unwrap_err();
                assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "{mode:o}");
            }
            drop(create(0o755).unwrap());
            for mode in [0o4755, 0o2755] {
                let refused = fs::set_permissions(&path, Permissions::from_mode(mode));
                assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM), "{mode:o}");
            }
            fs::set_permissions(&path, Permissions::from_mode(0o1711)).unwrap();
            std::os::unix::fs::chown(&path, Some(12345), Some(12345)).unwrap();
            fs::metadata(&path).unwrap()
        });
        let metadata = filtered.join().unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o1711);
        assert_eq!(metadata.uid(), rustix::process::geteuid().as_raw());
    }
}
