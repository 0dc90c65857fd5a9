//! What is free on a file system.

use std::path::Path;

/// The bytes that this user can still write below the directory. `None`: they cannot be measured.
pub(super) fn free(directory: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(directory).ok()?;
    system.f_bavail.checked_mul(system.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_that_is_there_can_be_measured() {
        let directory = tempfile::tempdir().unwrap();
        assert!(free(directory.path()).is_some());
        assert_eq!(free(&directory.path().join("none")), None);
    }
}
