//! passt: a user network of QEMU in its own process.
//!
//! Owns the process and the socket by which QEMU connects to it. passt ends with QEMU, because it
//! serves one connection.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, BufReader, sink};
use tokio::process::{Child, Command};

use super::routes::{PASST_GUEST, PASST_RESOLVER, PASST_ROUTER};
use super::timeouts::{self, within};

/// A part of the line that passt prints when it listens.
const READY: &str = "start qemu";

/// The process. Dropping it ends the process.
#[derive(Debug)]
pub(super) struct Passt {
    _process: Child,
    socket: PathBuf,
}

impl Passt {
    /// Starts it, and waits until it listens on a socket in `directory`.
    pub(super) async fn start(program: &Path, directory: &Path) -> anyhow::Result<Self> {
        let socket = directory.join("passt.sock");
        let mut process = command(program, &socket).spawn().context("cannot run passt")?;
        let errors = process.stderr.take().context("it is piped")?;
        let mut errors = BufReader::new(errors).lines();
        let ready = async {
            let mut text = Vec::new();
            while let Some(line) = errors.next_line().await? {
                if line.contains(READY) {
                    return anyhow::Ok(());
                }
                text.push(line);
            }
            anyhow::bail!("passt did not start: {}", text.join("\n"))
        };
        within(timeouts::START, "the start of passt", ready).await?;
        // Some versions print the line even if they have no socket.
        ensure!(socket.exists(), "passt did not create {}", socket.display());
        // A full pipe would block it.
        let mut rest = errors.into_inner();
        tokio::spawn(async move { tokio::io::copy(&mut rest, &mut sink()).await });
        Ok(Self { _process: process, socket })
    }

    /// The options of QEMU for the card that passt serves.
    pub(super) fn devices(&self) -> Vec<String> {
        let socket = self.socket.display();
        [
            "-netdev",
            &format!("stream,id=passt,server=off,addr.type=unix,addr.path={socket}"),
            "-device",
            "virtio-net-pci,netdev=passt,romfile=",
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

/// The address of the router leads to the loopback interface of this host, and that of the
/// resolver to the resolver of this host.
fn command(program: &Path, socket: &Path) -> Command {
    let [guest, router, resolver] =
        [PASST_GUEST, PASST_ROUTER, PASST_RESOLVER].map(|address| address.to_string());
    let mut command = Command::new(program);
    command.args(["--foreground", "--one-off", "--ipv4-only", "--socket"]).arg(socket);
    command.args(["--address", &guest, "--netmask", "24", "--gateway", &router]);
    command.args(["--dns-forward", &resolver]);
    if rustix::process::geteuid().is_root() {
        // By default it changes to a user that cannot create the socket.
        command.args(["--runas", "0:0"]);
    }
    // It prints nothing to standard error if its standard output is a terminal.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Starts a script in place of passt. It gets the same arguments.
    async fn start(script: &str) -> anyhow::Result<Passt> {
        let directory = tempfile::tempdir()?;
        let program = directory.path().join("passt");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n"))?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        Passt::start(&program, directory.path()).await
    }

    #[tokio::test]
    async fn what_it_prints_before_it_ends_is_the_error() {
        let error = start("echo no namespaces >&2").await.unwrap_err();
        assert_eq!(error.to_string(), "passt did not start: no namespaces");
    }

    #[tokio::test]
    async fn it_is_ready_only_with_its_socket() {
        let ready = "echo 'You can now start qemu:' >&2";
        let error = start(ready).await.unwrap_err().to_string();
        assert!(error.starts_with("passt did not create "), "{error}");
        // The socket is the fifth argument.
        let passt = start(&format!("touch \"$5\"; {ready}")).await.unwrap();
        assert!(passt.devices()[1].starts_with("stream,id=passt,server=off,addr.type=unix,"));
    }
}
