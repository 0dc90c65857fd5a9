//! A machine in which metaservice and its peers are measured.
//!
//! Owns its parts. On the network card of metaservice: the service, the raw streams, and the
//! gateway that leads to servers of this host. On separate devices: QEMU's user network with
//! OpenSSH and `guestfwd`, passt, and the port of QEMU's guest agent. The root directory is the
//! host's, so that the same programs run on both sides. `metaservice-qemu` does not support the
//! peers' devices: a wrapper script for QEMU adds them.

use std::cell::OnceCell;
use std::fmt::Display;
use std::future::Future;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use metaservice::{MetaService, Volume, VolumeMode};
use metaservice_gateway::Gateway;
use metaservice_nic::{Config, Connection, SERVICE_ADDRESS, attach_gateway};
use metaservice_qemu::{
    Boot, Boundary, Card, MacAddress, Machine, MachineSpec, Memory, ModuleNeed, Qemu, Share, Tools,
    initramfs,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::passt::Passt;
use super::peers::Peers;
use super::raw::{self, Flow, Servers};
use super::routes::{self, Router};
use super::scratch::Scratch;
use super::secure_shell::SecureShell;
use super::tap::Tap;
use super::timeouts::{self, within};
use crate::measure::Setting;

/// The ports of the raw streams: one discards what it receives, one sends what is requested.
const DISCARD: u16 = 9;
const GENERATE: u16 = 19;

/// The address of `guestfwd` in the user network.
const FORWARD: &str = "10.0.2.100:9";

/// The job: reads a number from a FIFO and writes as many zeros to its log, in a loop.
const JOB: &str =
    "mkfifo /run/zeros && while read count </run/zeros; do head -c $count /dev/zero; done";

/// A machine with all parts. Dropping it ends the machine.
///
/// If a peer is not available or does not start, only its own samples fail.
pub(super) struct Lab {
    pub(super) runtime: Runtime,
    pub(super) service: MetaService,
    pub(super) log: Tap,
    peers: Result<Peers, String>,
    passt: Result<Passt, String>,
    secure_shell: OnceCell<Result<SecureShell, String>>,
    flows: mpsc::UnboundedReceiver<Flow>,
    machine: Machine,
    ssh_port: u16,
    pub(super) servers: Servers,
    _gateway: Gateway,
    scratch: Scratch,
}

impl Lab {
    /// Boots the machine.
    pub(super) fn boot(setting: &Setting) -> anyhow::Result<Self> {
        let runtime = Runtime::new()?;
        let peers = Peers::get();
        let tools = metaservice_qemu::find().require()?;
        let scratch = Scratch::new()?;
        std::fs::copy(std::env::current_exe()?, scratch.path().join("bench"))?;
        let agent = std::fs::read(setting.agent()?)?;
        let (flow, flows) = mpsc::unbounded_channel();
        metaservice_qemu::raise_descriptors();
        let start = async {
            let ssh_port = free_port()?;
            let servers = Servers::start(&flow).await?;
            let (qemu, passt) = match &peers {
                Ok(peers) => {
                    let port = servers.discard;
                    let netcat = format!("{} -N 127.0.0.1 {port}", peers.netcat().display());
                    let mut devices = devices(scratch.path(), ssh_port, &netcat);
                    let passt = match peers.passt() {
                        Ok(program) => Passt::start(program, scratch.path()).await,
                        Err(error) => Err(error),
                    };
                    devices.extend(passt.iter().flat_map(Passt::devices));
                    (wrapper(&tools.qemu, peers, scratch.path(), &devices)?, passt)
                }
                Err(error) => (tools.qemu.clone(), Err(anyhow::anyhow!("{error:#}"))),
            };
            let (host, guest) = UnixStream::pair()?;
            host.set_nonblocking(true)?;
            let host = tokio::net::UnixStream::from_std(host)?;
            let config = Config::default().ports(vec![80, DISCARD, GENERATE]);
            let (nic, router, driver) = attach_gateway(host, config.network(routes::network()));
            let gateway = Gateway::start(router, routes::config()?);
            tokio::spawn(driver.run());
            let (tap, sink) = Tap::new();
            let root =
                Volume { tag: Share::tag(0), path: "/".to_owned(), mode: VolumeMode::Overlay };
            let builder = MetaService::builder(["sh", "-c", JOB]).volumes([root]);
            let service = builder.log(sink).start()?;
            tokio::spawn(dispatch(nic, service.clone(), flow));
            let machine = Machine::start(describe(&qemu, &tools, agent, guest)?).await?;
            tokio::select! {
                fetched = timeout(timeouts::START, service.fetched()) => if fetched.is_err() {
                    bail!("the guest did not fetch its job: {}", machine.console().tail(20).join("\n"));
                },
                exit = machine.wait() => bail!("the machine ended: {}", exit.cause),
            }
            anyhow::Ok((service, tap, machine, passt, (ssh_port, servers, gateway)))
        };
        let (service, log, machine, passt, (ssh_port, servers, _gateway)) =
            runtime.block_on(start)?;
        let peers = peers.map_err(|error| format!("{error:#}"));
        let passt = passt.map_err(|error| format!("{error:#}"));
        let secure_shell = OnceCell::new();
        let lab = Self {
            runtime,
            service,
            log,
            peers,
            passt,
            secure_shell,
            flows,
            machine,
            ssh_port,
            servers,
            _gateway,
            scratch,
        };
        let mut cards = routes::GATEWAY_CARD.to_vec();
        if lab.peers.is_ok() {
            cards.extend(routes::USER_CARD);
        }
        if lab.passt.is_ok() {
            cards.extend(routes::PASST_CARD);
        }
        let ip = tools.busybox.display();
        let steps: Vec<_> = cards.iter().map(|words| format!("{ip} ip {words}")).collect();
        lab.exec(&["sh", "-c", &steps.join(" && ")])?;
        Ok(lab)
    }

    /// Waits for an operation in the guest. A timeout or the end of the machine is an error.
    pub(super) fn ask<T>(
        &self,
        what: impl Display,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        self.runtime.block_on(async {
            tokio::select! {
                done = within(timeouts::SAMPLE, what, work) => done,
                exit = self.machine.wait() => bail!("the machine ended: {}", exit.cause),
            }
        })
    }

    /// Runs a command in the guest by `exec`, and returns its standard output.
    pub(super) fn exec(&self, words: &[&str]) -> anyhow::Result<String> {
        let work = async {
            let output = self.service.exec(words.iter().copied()).output().await?;
            let error_text = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{}: {}", words.join(" "), error_text.trim());
            let written = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok(written)
        };
        self.ask(words[0], work)
    }

    /// Starts a detached command in the guest.
    pub(super) fn detach(&self, words: &[&str]) -> anyhow::Result<()> {
        self.ask(words[0], async {
            Ok(self.service.exec(words.iter().copied()).spawn_detached().await?)
        })?;
        Ok(())
    }

    /// Runs a part of this program in the guest, and returns its standard output.
    pub(super) fn play(&self, words: &[&str]) -> anyhow::Result<String> {
        let own = self.scratch.path().join("bench");
        self.exec(&[&[text(&own)?, "guest"], words].concat())
    }

    /// Starts a part of this program in the guest, detached.
    pub(super) fn play_detached(&self, words: &[&str]) -> anyhow::Result<()> {
        let own = self.scratch.path().join("bench");
        self.detach(&[&[text(&own)?, "guest"], words].concat())
    }

    /// Runs a raw stream between this program in the guest and a raw port, a server or `guestfwd`.
    pub(super) fn stream(&mut self, way: Way, bytes: u64) -> anyhow::Result<f64> {
        let own = self.scratch.path().join("bench");
        let own = text(&own)?;
        let (service, count) = (|port| format!("{SERVICE_ADDRESS}:{port}"), bytes.to_string());
        while self.flows.try_recv().is_ok() {}
        match way {
            Way::Out => self.play(&["flood", &service(DISCARD), &count])?,
            Way::In => self.play(&["receive", &service(GENERATE), &count])?,
            Way::RoutedOut(router) => {
                let address = router.reach(self, self.servers.discard)?;
                self.play(&["flood", &address, &count])?
            }
            Way::RoutedIn(router) => {
                let address = router.reach(self, self.servers.generate)?;
                self.play(&["receive", &address, &count])?
            }
            Way::Forward => {
                self.peers()?;
                self.play(&["flood", FORWARD, &count])?
            }
            Way::Piped => {
                let pipe =
                    format!("head -c {count} /dev/zero | {own} guest relay {}", service(DISCARD));
                self.exec(&["sh", "-c", &pipe])?
            }
        };
        let mut flows = std::mem::replace(&mut self.flows, mpsc::unbounded_channel().1);
        let flow = self.ask("the stream", async { Ok(flows.recv().await) });
        self.flows = flows;
        let flow = flow?.context("the stream is not accepted")?;
        ensure!(flow.bytes == bytes, "{} of {bytes} bytes came", flow.bytes);
        Ok(flow.rate())
    }

    /// The peers, if they are available.
    pub(super) fn peers(&self) -> anyhow::Result<&Peers> {
        self.peers.as_ref().map_err(|reason| anyhow::anyhow!("{reason}"))
    }

    /// passt, if it is available.
    pub(super) fn passt(&self) -> anyhow::Result<&Passt> {
        self.passt.as_ref().map_err(|reason| anyhow::anyhow!("{reason}"))
    }

    /// OpenSSH. The first call starts it.
    pub(super) fn secure_shell(&self) -> anyhow::Result<&SecureShell> {
        let start = || SecureShell::start(self).map_err(|error| format!("{error:#}"));
        let shell = self.secure_shell.get_or_init(start);
        shell.as_ref().map_err(|reason| anyhow::anyhow!("sshd did not start: {reason}"))
    }

    /// The port of the host that is forwarded to port 22 of the guest.
    pub(super) fn ssh_port(&self) -> u16 {
        self.ssh_port
    }

    /// A directory that host and guest share.
    pub(super) fn directory(&self) -> &Path {
        self.scratch.path()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(Ok(shell)) = self.secure_shell.get() {
            shell.disconnect();
        }
    }
}

/// The path of a raw stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// From the guest, over the card.
    Out,
    /// To the guest, over the card.
    In,
    /// From the guest, over the user network and one program for each connection.
    Forward,
    /// From a command in the guest, through a pipe and over the card.
    Piped,
    /// From the guest to a server of this host.
    RoutedOut(Router),
    /// From a server of this host to the guest.
    RoutedIn(Router),
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
    let contents = initramfs::Contents::new(agent, tools).need(ModuleNeed::SharedDirectory);
    let boot = Boot::from_kernel(&tools.kernel).initramfs(initramfs::build(&contents)?);
    Ok(MachineSpec::new(qemu, boot)
        .memory(Memory::parse("3G")?)
        .card(Card::new(card.into(), MacAddress::random()))
        .share(Share::new("/"))
        // The peers' devices start programs, listen on ports of the host and use other files.
        .boundary(Boundary::NONE))
}

/// The options of QEMU for the peers' devices.
fn devices(directory: &Path, ssh_port: u16, forward: &str) -> Vec<String> {
    let directory = directory.display();
    [
        "-netdev",
        &format!(
            "user,id=peers,ipv6=off,hostfwd=tcp:127.0.0.1:{ssh_port}-:22,\
             guestfwd=tcp:{FORWARD}-cmd:{forward}"
        ),
        "-device",
        "virtio-net-pci,netdev=peers,romfile=",
        "-device",
        "virtio-serial-pci",
        "-chardev",
        &format!("socket,id=ga,path={directory}/ga.sock,server=on,wait=off"),
        "-device",
        "virtserialport,chardev=ga,name=org.qemu.guest_agent.0",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Writes a script that runs QEMU with more devices and lets it start the program of `guestfwd`.
fn wrapper(
    qemu: &Qemu,
    peers: &Peers,
    directory: &Path,
    devices: &[String],
) -> anyhow::Result<Qemu> {
    let path = directory.join("qemu");
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
    Ok(Qemu::new(path, qemu.version))
}

/// Dispatches the connections of the card by their port.
async fn dispatch(
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

/// The rate of a transfer that began at `begun`, in MB/s.
pub(super) fn rate(bytes: u64, begun: Instant) -> f64 {
    bytes as f64 / begun.elapsed().as_secs_f64() / 1e6
}
