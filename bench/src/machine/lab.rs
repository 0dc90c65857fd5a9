//! A machine in which ours and the peers are measured.
//!
//! Owns its parts: our service and raw streams on our network card, and beside that card, on
//! devices of their own, QEMU's user network with OpenSSH and `guestfwd` behind it, and the port of
//! QEMU's guest agent. Its root is this host's own, so that the same programs run on both sides.
//! `metaservice-vm` knows no such devices: a script that stands for QEMU adds them.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use metaservice::{Exec, ExecOptions, MetaService};
use metaservice_nic::{Config, Connection, SERVICE_ADDRESS, attach};
use metaservice_vm::{
    Boot, Card, MacAddress, Machine, MachineSpec, Memory, ModuleNeed, Qemu, Root, Tools, initramfs,
};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::peers::{self, Peers};
use super::raw::{self, Flow};
use super::tap::Tap;
use crate::measure::Setting;

/// The ports of raw streams: what comes is thrown away, and as much comes as is asked for.
const DISCARD: u16 = 9;
const GENERATE: u16 = 19;

/// Where the user network leads its `guestfwd`.
const FORWARD: &str = "10.0.2.100:9";

/// How long anything may take that is no measure.
const PATIENCE: Duration = Duration::from_secs(240);

/// The job: writes as many zeros into its log as it is told to.
const JOB: &str =
    "mkfifo /run/zeros && while read count </run/zeros; do head -c $count /dev/zero; done";

/// A machine with everything in it. Dropping it ends it.
pub(super) struct Lab {
    pub(super) runtime: Arc<Runtime>,
    pub(super) service: MetaService,
    pub(super) log: Tap,
    pub(super) peers: Peers,
    flows: mpsc::UnboundedReceiver<Flow>,
    _machine: Machine,
    folder: TempDir,
    ssh_port: u16,
}

impl Lab {
    /// Boots it and starts the peers in it.
    pub(super) fn boot(setting: &Setting) -> anyhow::Result<Self> {
        let runtime = Runtime::new()?;
        let peers = Peers::get()?;
        let tools = metaservice_vm::find().require()?;
        // Not in the temporary folder, which is the guest's own.
        let folder = tempfile::Builder::new().prefix("bench.").tempdir_in(peers::cache()?)?;
        std::fs::copy(std::env::current_exe()?, folder.path().join("bench"))?;
        let agent = std::fs::read(setting.agent()?)?;
        let (flow, flows) = mpsc::unbounded_channel();
        let lab = runtime.block_on(async {
            let discard = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let netcat = format!(
                "{} -N 127.0.0.1 {}",
                peers.netcat().display(),
                discard.local_addr()?.port()
            );
            tokio::spawn(raw::serve(discard, flow.clone()));
            let ssh_port = free_port()?;
            let qemu = stand_in(
                &tools.qemu,
                &peers,
                folder.path(),
                &devices(folder.path(), ssh_port, &netcat),
            )?;
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let ours = tokio::net::UnixStream::from_std(ours)?;
            let config = Config { ports: vec![80, DISCARD, GENERATE], ..Config::default() };
            let (nic, driver) = attach(ours, config);
            tokio::spawn(driver.run());
            let (tap, drain) = Tap::new();
            let service = MetaService::builder(["sh", "-c", JOB]).log(drain).start()?;
            tokio::spawn(sort(nic, service.clone(), flow));
            let machine = Machine::start(describe(&qemu, &tools, agent, theirs)?).await?;
            let fetched = tokio::time::timeout(PATIENCE, service.fetched()).await;
            if fetched.is_err() {
                bail!("the guest does not come: {}", machine.console().tail(20).join("\n"));
            }
            anyhow::Ok((service, tap, machine, ssh_port))
        });
        let (service, log, machine, ssh_port) = lab?;
        let runtime = Arc::new(runtime);
        let lab = Self { runtime, service, log, peers, flows, _machine: machine, folder, ssh_port };
        lab.start_peers()?;
        Ok(lab)
    }

    /// Runs a command in the guest, by our own means; what it wrote.
    pub(super) fn exec(&self, words: &[&str]) -> anyhow::Result<String> {
        let work = async {
            let mut shell = self.service.exec(command(words)).await?;
            let mut written = String::new();
            let mut complained = String::new();
            let (mut out, mut err) = (shell.stdout.take(), shell.stderr.take());
            let out = async {
                if let Some(out) = &mut out {
                    let _ = out.read_to_string(&mut written).await;
                }
            };
            let err = async {
                if let Some(err) = &mut err {
                    let _ = err.read_to_string(&mut complained).await;
                }
            };
            tokio::join!(out, err);
            ensure!(shell.wait().await?, "{}: {}", words.join(" "), complained.trim());
            Ok(written)
        };
        let ended = async { tokio::time::timeout(PATIENCE, work).await };
        self.runtime.block_on(ended).with_context(|| format!("{} does not end", words[0]))?
    }

    /// Runs this program's part in the guest against one of our raw ports, or `guestfwd`'s.
    pub(super) fn stream(&mut self, way: Way, bytes: u64) -> anyhow::Result<f64> {
        let own = self.folder.path().join("bench");
        let own = text(&own)?;
        let (part, address) = match way {
            Way::Out => ("flood", format!("{SERVICE_ADDRESS}:{DISCARD}")),
            Way::In => ("drain", format!("{SERVICE_ADDRESS}:{GENERATE}")),
            Way::Forward => ("flood", FORWARD.to_owned()),
        };
        while self.flows.try_recv().is_ok() {}
        self.exec(&[own, "guest", part, &address, &bytes.to_string()])?;
        let flow = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, self.flows.recv()).await });
        let flow = flow.ok().flatten().context("the stream has not ended")?;
        ensure!(flow.bytes == bytes, "{} of {bytes} bytes came", flow.bytes);
        Ok(flow.rate())
    }

    /// A command line of a peer's program on the host, with its libraries.
    pub(super) fn peer(&self, program: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        command.env("LD_LIBRARY_PATH", self.peers.libraries());
        command
    }

    /// `ssh` or `scp` to the guest with one connection for each, or with one that stays.
    pub(super) fn open_ssh(&self, program: &Path, reused: bool) -> std::process::Command {
        let mut command = self.peer(program);
        let key = self.folder.path().join("key");
        command.arg("-F").arg("/dev/null").arg("-i").arg(key);
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
            "Compression=no",
            // It may still be starting.
            "ConnectionAttempts=60",
        ] {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(format!("Port={}", self.ssh_port));
        if reused {
            let control = self.folder.path().join("control").display().to_string();
            command.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=yes"]);
            command.arg("-o").arg(format!("ControlPath={control}"));
        }
        if program == self.peers.scp() {
            command.arg("-S").arg(self.peers.ssh());
        }
        command
    }

    /// The socket that leads to QEMU's guest agent.
    pub(super) fn guest_agent(&self) -> PathBuf {
        self.folder.path().join("ga.sock")
    }

    fn start_peers(&self) -> anyhow::Result<()> {
        let folder = self.folder.path();
        for key in ["key", "host"] {
            let mut make = self.peer(&self.peers.ssh_keygen());
            peers::run(make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(key)))?;
        }
        let busybox = metaservice_vm::find().require()?.busybox;
        let modules = metaservice_vm::find().require()?.kernel.modules;
        let console = modules.context("the kernel has no modules")?;
        let console = console.join("kernel/drivers/char/virtio_console.ko");
        let (sshd, ga) = (self.peers.sshd(), self.peers.guest_agent());
        let script = format!(
            "set -e; b={busybox}; $b insmod {console} 2>/dev/null || true\n\
             $b ip link set eth1 up; $b ip addr add 10.0.2.15/24 dev eth1\n\
             mkdir -p /run/sshd /var/empty; cp -r {folder}/key.pub {folder}/host /run/sshd; chmod 600 /run/sshd/*\n\
             $b grep -q ^sshd: /etc/passwd || echo sshd:x:998:65534::/run/sshd:/bin/false >>/etc/passwd\n\
             {{ echo HostKey /run/sshd/host; echo AuthorizedKeysFile /run/sshd/key.pub; echo StrictModes no\n\
             echo UsePAM no; echo PermitRootLogin yes; echo Subsystem sftp {sftp}; echo UseDNS no; }} >/run/sshd/config\n",
            busybox = busybox.display(),
            console = console.display(),
            folder = folder.display(),
            sftp = self.peers.sftp_server().display(),
        );
        self.exec(&["/bin/sh", "-c", &script])?;
        let library_path = format!("LD_LIBRARY_PATH={}", self.peers.libraries());
        let (sshd, ga) = (text(&sshd)?, text(&ga)?);
        self.detach(&["env", &library_path, sshd, "-D", "-e", "-f", "/run/sshd/config"])?;
        self.detach(&[
            "sh",
            "-c",
            &format!("exec {ga} -m virtio-serial -p /dev/vport*p1 -t /run"),
        ])?;
        Ok(())
    }

    fn detach(&self, words: &[&str]) -> anyhow::Result<()> {
        self.runtime.block_on(self.service.exec_detached(command(words)))?;
        Ok(())
    }
}

/// Which way a raw stream goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// From the guest over our card.
    Out,
    /// To the guest over our card.
    In,
    /// From the guest over the user network and a program for each connection.
    Forward,
}

pub(super) fn command(words: &[&str]) -> Exec {
    let command = words.iter().map(|word| (*word).to_owned()).collect();
    Exec { command, tty: false, options: ExecOptions::default() }
}

pub(super) fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not text", path.display()))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(StdListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn describe(
    qemu: &Qemu,
    tools: &Tools,
    agent: Vec<u8>,
    card: UnixStream,
) -> anyhow::Result<MachineSpec> {
    let contents = initramfs::Contents::new(agent, tools).need(ModuleNeed::SharedFolder);
    let boot = Boot::from_kernel(&tools.kernel).initramfs(initramfs::build(&contents)?);
    Ok(MachineSpec::new(qemu, boot)
        .memory(Memory::parse("3G")?)
        .card(Card::new(card.into(), MacAddress::random()))
        .root(Root::Folder("/".into())))
}

/// The peers' devices, in QEMU's words.
fn devices(folder: &Path, ssh_port: u16, forward: &str) -> Vec<String> {
    let folder = folder.display();
    [
        "-netdev",
        &format!("user,id=peers,restrict=on,hostfwd=tcp:127.0.0.1:{ssh_port}-:22,guestfwd=tcp:{FORWARD}-cmd:{forward}"),
        "-device",
        "virtio-net-pci,netdev=peers,romfile=",
        "-device",
        "virtio-serial-pci",
        "-chardev",
        &format!("socket,id=ga,path={folder}/ga.sock,server=on,wait=off"),
        "-device",
        "virtserialport,chardev=ga,name=org.qemu.guest_agent.0",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A script that is QEMU with more devices, and may start `guestfwd`'s program.
fn stand_in(qemu: &Qemu, peers: &Peers, folder: &Path, devices: &[String]) -> anyhow::Result<Qemu> {
    let path = folder.join("qemu");
    let mut script = std::fs::File::create(&path)?;
    let real = qemu.path.display();
    let more: String = devices.iter().map(|word| format!(" '{word}'")).collect();
    write!(
        script,
        "#!/bin/sh\nfor word; do shift\ncase $word in *,spawn=deny,*) word=on ;; esac\n\
         set -- \"$@\" \"$word\"; done\nexport LD_LIBRARY_PATH='{libraries}'\nexec {real} \"$@\"{more}\n",
        libraries = peers.libraries(),
    )?;
    script.set_permissions(std::fs::Permissions::from_mode(0o755))?;
    Ok(Qemu { path, version: qemu.version })
}

/// Hands the card's connections to whom their port belongs.
async fn sort(
    mut nic: metaservice_nic::Nic,
    service: MetaService,
    flow: mpsc::UnboundedSender<Flow>,
) {
    while let Some(connection) = nic.accept().await {
        tokio::spawn(converse(connection, service.clone(), flow.clone()));
    }
}

async fn converse(connection: Connection, service: MetaService, flow: mpsc::UnboundedSender<Flow>) {
    match connection.local_port() {
        DISCARD => raw::discard(connection, &flow).await,
        GENERATE => raw::generate(connection, &flow).await,
        _ => drop(service.serve_connection(connection).await),
    }
}

/// Bytes in a time, as millions per second.
pub(super) fn rate(bytes: u64, begun: Instant) -> f64 {
    bytes as f64 / begun.elapsed().as_secs_f64() / 1e6
}
