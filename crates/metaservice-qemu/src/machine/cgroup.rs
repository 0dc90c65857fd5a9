//! The cgroup that QEMU joins.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// QEMU cannot join a cgroup.
#[derive(Debug, thiserror::Error)]
#[error("QEMU cannot join the cgroup {}", directory.display())]
pub struct CgroupError {
    /// The directory of the cgroup.
    pub directory: PathBuf,
    /// Why.
    #[source]
    pub cause: io::Error,
}

/// Moves a process with all its threads. A process that has ended needs no group. The kernel may
/// take some milliseconds for it.
pub(super) async fn join(directory: &Path, process: u32) -> Result<(), CgroupError> {
    let file = directory.join("cgroup.procs");
    let moving = tokio::task::spawn_blocking(move || {
        OpenOptions::new().write(true).open(file)?.write_all(process.to_string().as_bytes())
    });
    match moving.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Err(cause) if cause.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => {
            Err(CgroupError { directory: directory.to_owned(), cause })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_group_gets_the_process_id() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cgroup.procs");
        std::fs::write(&file, "").unwrap();
        join(directory.path(), 4711).await.unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "4711");
    }

    #[tokio::test]
    async fn a_directory_that_is_no_group_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = join(directory.path(), 4711).await.unwrap_err();
        assert_eq!(error.directory, directory.path());
        assert_eq!(error.cause.kind(), io::ErrorKind::NotFound);
    }
}
