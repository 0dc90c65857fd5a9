//! The peers: the programs that people use today, unpacked in the cache.
//!
//! Owns the list of packages and the paths of their programs. Nothing is installed: apt downloads
//! the packages, and they are unpacked into the cache directory, as `setup.sh` does with QEMU.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::scratch::cache;
use super::timeouts;

/// QEMU's guest agent, OpenSSH, netcat, and their libraries that a minimal system lacks.
const PACKAGES: [&str; 7] = [
    "qemu-guest-agent",
    "openssh-server",
    "openssh-client",
    "openssh-sftp-server",
    "netcat-openbsd",
    "libwrap0",
    "libnsl2",
];

/// A program of the packages, by which they are found.
const PROGRAM: &str = "usr/sbin/sshd";

/// A user network in its own process. Older systems do not have this package.
const PASST: &str = "passt";
const PASST_PROGRAM: &str = "usr/bin/passt";

/// The unpacked packages.
#[derive(Debug, Clone)]
pub(super) struct Peers {
    directory: PathBuf,
    passt: Result<PathBuf, String>,
}

impl Peers {
    /// Finds the packages in the cache, or downloads them.
    pub(super) fn get() -> anyhow::Result<Self> {
        let (directory, passt) = (cache()?.join("peers"), cache()?.join(PASST));
        find(&directory, &PACKAGES, PROGRAM)
            .context("cannot download the peers (Debian and Ubuntu only)")?;
        let passt = find(&passt, &[PASST], PASST_PROGRAM)
            .map_err(|error| format!("cannot download {PASST}: {error:#}"));
        Ok(Self { directory, passt })
    }

    /// The program of passt, if its package is available.
    pub(super) fn passt(&self) -> anyhow::Result<&Path> {
        self.passt.as_deref().map_err(|reason| anyhow::anyhow!("{reason}"))
    }

    pub(super) fn ssh(&self) -> PathBuf {
        self.directory.join("usr/bin/ssh")
    }

    pub(super) fn scp(&self) -> PathBuf {
        self.directory.join("usr/bin/scp")
    }

    pub(super) fn ssh_keygen(&self) -> PathBuf {
        self.directory.join("usr/bin/ssh-keygen")
    }

    pub(super) fn sshd(&self) -> PathBuf {
        self.directory.join("usr/sbin/sshd")
    }

    pub(super) fn sftp_server(&self) -> PathBuf {
        self.directory.join("usr/lib/openssh/sftp-server")
    }

    pub(super) fn guest_agent(&self) -> PathBuf {
        self.directory.join("usr/sbin/qemu-ga")
    }

    pub(super) fn netcat(&self) -> PathBuf {
        self.directory.join("bin/nc.openbsd")
    }

    /// A command that runs one of the programs on the host, with its libraries.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.libraries());
        command
    }

    /// The directories of the libraries, for `LD_LIBRARY_PATH`.
    pub(super) fn libraries(&self) -> String {
        let directory = self.directory.display();
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        format!("{directory}/usr/lib/{triplet}:{directory}/lib/{triplet}")
    }
}

/// Finds a program of packages in their directory, or downloads the packages.
fn find(directory: &Path, packages: &[&str], program: &str) -> anyhow::Result<PathBuf> {
    let path = directory.join(program);
    if !path.is_file() {
        fetch(directory, packages)?;
        // A concurrent run may have created it first.
        ensure!(path.is_file(), "{} is missing", path.display());
    }
    Ok(path)
}

fn fetch(directory: &Path, packages: &[&str]) -> anyhow::Result<()> {
    eprintln!("downloading {} to {}", packages.join(" "), directory.display());
    let parent = directory.parent().context("a cache directory has a parent")?;
    let staging = tempfile::Builder::new().prefix(".staging.").tempdir_in(parent)?;
    let mut fetching = Command::new("apt-get");
    fetching.arg("download").args(packages).current_dir(staging.path());
    timeouts::run(fetching)?;
    let unpacked = staging.path().join("unpacked");
    for entry in std::fs::read_dir(staging.path())? {
        let package = entry?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(package).arg(&unpacked);
            timeouts::run(unpack)?;
        }
    }
    let _ = std::fs::rename(&unpacked, directory);
    Ok(())
}
