//! OpenSSH as people use it with a virtual machine: keys, a server in the guest, `ssh` and `scp`.
//!
//! Owns the settings of the server, and how a connection is opened or reused. The guest's root has
//! a plain shell, so that a `.bashrc` of the host's user does not count as a cost of OpenSSH.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::lab::{Lab, text};
use super::peers::Peers;
use super::timeouts;

/// A server in the guest, and how to connect to it.
#[derive(Debug, Clone)]
pub(super) struct SecureShell {
    peers: Peers,
    directory: PathBuf,
    port: u16,
}

impl SecureShell {
    /// Starts the server, and waits until it listens.
    pub(super) fn start(lab: &Lab) -> anyhow::Result<Self> {
        let (peers, directory) = (lab.peers()?.clone(), lab.directory().join("ssh"));
        std::fs::create_dir(&directory)?;
        for key in ["key", "host"] {
            let mut make = peers.command(&peers.ssh_keygen());
            make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(directory.join(key));
            timeouts::run(make)?;
        }
        let settings = format!(
            "set -e; mkdir -p /run/sshd /var/empty\n\
             cp {directory}/key.pub {directory}/host /run/sshd; chmod 600 /run/sshd/*\n\
             sed -i 's|^root:.*|root:x:0:0:root:/root:/bin/sh|' /etc/passwd\n\
             grep -q ^sshd: /etc/passwd ||\n\
             echo sshd:x:998:65534::/run/sshd:/bin/false >>/etc/passwd\n\
             {{ echo HostKey /run/sshd/host; echo AuthorizedKeysFile /run/sshd/key.pub\n\
             echo StrictModes no; echo UsePAM no; echo PermitRootLogin yes\n\
             echo Subsystem sftp {sftp}; echo UseDNS no; }} >/run/sshd/config\n\
             mkfifo /run/sshd/errors",
            directory = directory.display(),
            sftp = peers.sftp_server().display(),
        );
        lab.exec(&["sh", "-c", &settings])?;
        let sshd = format!(
            "LD_LIBRARY_PATH={} exec {} -D -e -f /run/sshd/config 2>/run/sshd/errors",
            peers.libraries(),
            text(&peers.sshd())?
        );
        lab.detach(&["sh", "-c", &sshd])?;
        // Its first line says that it listens.
        let line = lab.exec(&["head", "-n", "1", "/run/sshd/errors"])?;
        anyhow::ensure!(line.contains("listening"), "sshd: {}", line.trim());
        Ok(Self { peers, directory, port: lab.ssh_port() })
    }

    /// Runs a command in the guest, over a new connection or over one that is reused.
    pub(super) fn run(&self, words: &[&str], reused: bool) -> anyhow::Result<()> {
        let mut ssh = self.command(&self.peers.ssh());
        if reused {
            ssh.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=yes"]);
            ssh.arg("-o").arg(format!("ControlPath={}", self.directory.join("control").display()));
        }
        ssh.arg("root@127.0.0.1").args(words);
        timeouts::run(ssh).map(drop)
    }

    /// Copies a file or a directory out of the guest.
    pub(super) fn fetch(&self, from: &str, to: &Path) -> anyhow::Result<()> {
        let mut copy = self.copy();
        copy.arg(format!("root@127.0.0.1:{from}")).arg(to);
        timeouts::run(copy).map(drop)
    }

    /// Copies a file or a directory into the guest.
    pub(super) fn send(&self, from: &Path, to: &str) -> anyhow::Result<()> {
        let mut copy = self.copy();
        copy.arg(from).arg(format!("root@127.0.0.1:{to}"));
        timeouts::run(copy).map(drop)
    }

    fn copy(&self) -> Command {
        let mut copy = self.command(&self.peers.scp());
        copy.arg("-qr").arg("-S").arg(self.peers.ssh());
        copy
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = self.peers.command(program);
        command.arg("-F").arg("/dev/null").arg("-i").arg(self.directory.join("key"));
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

    /// Closes the reused connection, if there is one.
    pub(super) fn disconnect(&self) {
        let control = self.directory.join("control");
        if control.exists() {
            let mut ssh = self.peers.command(&self.peers.ssh());
            ssh.args(["-F", "/dev/null", "-O", "exit", "-S"]).arg(control).arg("root@127.0.0.1");
            let _ = timeouts::run(ssh);
        }
    }
}
