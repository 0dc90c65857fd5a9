//! What people use today, unpacked beside the tools that machines need.
//!
//! Owns which packages these are, and where their programs lie. Nothing is installed: the packages
//! are fetched by apt and unpacked into the cache folder, as `setup.sh` does with QEMU.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::bound;
use super::scratch::cache;

/// QEMU's guest agent, OpenSSH, netcat, and the libraries of theirs that a plain system lacks.
const PACKAGES: [&str; 7] = [
    "qemu-guest-agent",
    "openssh-server",
    "openssh-client",
    "openssh-sftp-server",
    "netcat-openbsd",
    "libwrap0",
    "libnsl2",
];

/// The unpacked packages.
#[derive(Debug, Clone)]
pub(super) struct Peers {
    folder: PathBuf,
}

impl Peers {
    /// Finds them in the cache, or fetches them.
    pub(super) fn get() -> anyhow::Result<Self> {
        let folder = cache()?.join("peers");
        if !folder.join("usr/sbin/sshd").is_file() {
            fetch(&folder).context("the peers cannot be fetched (Debian and Ubuntu only)")?;
        }
        Ok(Self { folder })
    }

    pub(super) fn ssh(&self) -> PathBuf {
        self.folder.join("usr/bin/ssh")
    }

    pub(super) fn scp(&self) -> PathBuf {
        self.folder.join("usr/bin/scp")
    }

    pub(super) fn ssh_keygen(&self) -> PathBuf {
        self.folder.join("usr/bin/ssh-keygen")
    }

    pub(super) fn sshd(&self) -> PathBuf {
        self.folder.join("usr/sbin/sshd")
    }

    pub(super) fn sftp_server(&self) -> PathBuf {
        self.folder.join("usr/lib/openssh/sftp-server")
    }

    pub(super) fn guest_agent(&self) -> PathBuf {
        self.folder.join("usr/sbin/qemu-ga")
    }

    pub(super) fn netcat(&self) -> PathBuf {
        self.folder.join("bin/nc.openbsd")
    }

    /// A command line of one of their programs on the host, with its libraries.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.libraries());
        command
    }

    /// Where their libraries are, for `LD_LIBRARY_PATH`.
    pub(super) fn libraries(&self) -> String {
        let folder = self.folder.display();
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        format!("{folder}/usr/lib/{triplet}:{folder}/lib/{triplet}")
    }
}

fn fetch(folder: &Path) -> anyhow::Result<()> {
    eprintln!("fetching {} into {}", PACKAGES.join(" "), folder.display());
    let parent = folder.parent().context("a cache folder has a parent")?;
    let staging = tempfile::Builder::new().prefix(".staging.").tempdir_in(parent)?;
    let mut fetching = Command::new("apt-get");
    fetching.arg("download").args(PACKAGES).current_dir(staging.path());
    bound::run(fetching)?;
    let unpacked = staging.path().join("unpacked");
    for entry in std::fs::read_dir(staging.path())? {
        let package = entry?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(package).arg(&unpacked);
            bound::run(unpack)?;
        }
    }
    // Another run may have been faster.
    let _ = std::fs::rename(&unpacked, folder);
    ensure!(folder.join("usr/sbin/sshd").is_file(), "they are not in {}", folder.display());
    Ok(())
}
