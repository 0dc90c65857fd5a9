//! OpenSSH as people use it with a virtual machine: keys, a server in the guest, `ssh` and `scp`.
//!
//! Owns the server's settings, and how a connection is made or reused. The guest's root has a plain
//! shell: what the user of this host has in a `.bashrc` is no cost of OpenSSH's.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::bound;
use super::lab::{Lab, text};
use super::peers::Peers;

/// A server in the guest, and the way to it.
#[derive(Debug, Clone)]
pub(super) struct SecureShell {
    peers: Peers,
    folder: PathBuf,
    port: u16,
}

impl SecureShell {
    /// Starts the server, and waits until it listens.
    pub(super) fn start(lab: &Lab) -> anyhow::Result<Self> {
        let (peers, folder) = (lab.peers()?.clone(), lab.folder().join("ssh"));
        std::fs::create_dir(&folder)?;
        for key in ["key", "host"] {
            let mut make = peers.command(&peers.ssh_keygen());
            make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(key));
            bound::run(make)?;
        }
        let settings = format!(
            "set -e; mkdir -p /run/sshd /var/empty; cp {folder}/key.pub {folder}/host /run/sshd; chmod 600 /run/sshd/*\n\
             sed -i 's|^root:.*|root:x:0:0:root:/root:/bin/sh|' /etc/passwd\n\
             grep -q ^sshd: /etc/passwd || echo sshd:x:998:65534::/run/sshd:/bin/false >>/etc/passwd\n\
             {{ echo HostKey /run/sshd/host; echo AuthorizedKeysFile /run/sshd/key.pub; echo StrictModes no\n\
             echo UsePAM no; echo PermitRootLogin yes; echo Subsystem sftp {sftp}; echo UseDNS no; }} >/run/sshd/config\n\
             mkfifo /run/sshd/said",
            folder = folder.display(),
            sftp = peers.sftp_server().display(),
        );
        lab.exec(&["sh", "-c", &settings])?;
        let sshd = format!(
            "LD_LIBRARY_PATH={} exec {} -D -e -f /run/sshd/config 2>/run/sshd/said",
            peers.libraries(),
            text(&peers.sshd())?
        );
        lab.detach(&["sh", "-c", &sshd])?;
        // Its first words are that it listens.
        let said = lab.exec(&["head", "-n", "1", "/run/sshd/said"])?;
        anyhow::ensure!(said.contains("listening"), "sshd: {}", said.trim());
        Ok(Self { peers, folder, port: lab.ssh_port() })
    }

    /// Runs a command in the guest, over a connection of its own or over one that stays.
    pub(super) fn run(&self, words: &[&str], reused: bool) -> anyhow::Result<()> {
        let mut ssh = self.command(&self.peers.ssh());
        if reused {
            ssh.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=yes"]);
            ssh.arg("-o").arg(format!("ControlPath={}", self.folder.join("control").display()));
        }
        ssh.arg("root@127.0.0.1").args(words);
        bound::run(ssh).map(drop)
    }

    /// A file out of the guest.
    pub(super) fn fetch(&self, from: &str, to: &Path) -> anyhow::Result<()> {
        let mut copy = self.copy();
        copy.arg(format!("root@127.0.0.1:{from}")).arg(to);
        bound::run(copy).map(drop)
    }

    /// A file into the guest.
    pub(super) fn bring(&self, from: &Path, to: &str) -> anyhow::Result<()> {
        let mut copy = self.copy();
        copy.arg(from).arg(format!("root@127.0.0.1:{to}"));
        bound::run(copy).map(drop)
    }

    fn copy(&self) -> Command {
        let mut copy = self.command(&self.peers.scp());
        copy.arg("-q").arg("-S").arg(self.peers.ssh());
        copy
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = self.peers.command(program);
        command.arg("-F").arg("/dev/null").arg("-i").arg(self.folder.join("key"));
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
            "Compression=no",
        ] {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(format!("Port={}", self.port));
        command
    }

    /// Ends the connection that stays, if there is one.
    pub(super) fn hang_up(&self) {
        let control = self.folder.join("control");
        if control.exists() {
            let mut ssh = self.peers.command(&self.peers.ssh());
            ssh.args(["-F", "/dev/null", "-O", "exit", "-S"]).arg(control).arg("root@127.0.0.1");
            let _ = bound::run(ssh);
        }
    }
}
