//! The machine that the flags describe, and its network card.
//!
//! This is where the rooms meet: the virtual machine gets one end of a socket pair, the
//! network card the other, and the card's connections go to the service.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;

use metaservice_private::lock;

use anyhow::{Context, Error, Result, bail, ensure};
use metaservice::{Cloud, CloudCard};
use metaservice_image::Format;
use metaservice_nic as nic;
use metaservice_qemu::{
    Accelerator, Arch, Boot, BootFile, CacheNotice, Card, Cpus, Disk, DiskFormat, Finding,
    MacAddress, Machine, MachineSpec, Memory, MissingTools, ModuleNeed, Network, Publish, Report,
    Root, StartError, SystemUuid, Tools, Transport, Visibility, initramfs,
};
use serde_json::json;

use crate::agent::AGENT;
use crate::args::{Accel, CloudArgs, HardwareArgs, Net, VmArgs};
use crate::bounds::Bounds;
use crate::cloud;
use crate::destination::{self, Named};
use crate::image::Image;
use crate::printer::{Hint, Printer, printable};
use crate::settings::{self, JobSettings};

/// The word that stands for our own kernel where a file could.
const BUILTIN: &str = "builtin";

/// The addresses of every machine that may be saved, or that an image knows which was kept: alone
/// on its wire, it needs none of its own.
const ADDRESS: [u8; 6] = [0x52, 0x54, 0, 169, 254, 2];
const OUTSIDE_ADDRESS: [u8; 6] = [0x52, 0x54, 0, 169, 254, 3];

/// The machine that the flags ask for, with its image found.
pub(crate) struct Plan {
    pub(crate) args: VmArgs,
    pub(crate) image: Option<Image>,
    /// Whether the user has something to tell the image.
    told: bool,
    /// What it boots from, once that was found or built.
    boot: Mutex<Option<Boot>>,
    printer: Printer,
}

impl Plan {
    /// Finds the image, and refuses what does not go together.
    pub(crate) fn resolve(args: VmArgs, cloud: &CloudArgs, printer: Printer) -> Result<Self> {
        ensure!(args.publish.is_empty() || args.net == Net::User, "--publish needs --net user");
        let image = args.image.as_deref().map(Image::resolve).transpose()?;
        Self::of(args, image, cloud, printer)
    }

    /// Refuses a file that this and the job would both write.
    pub(crate) fn check_outputs(&self, settings: &JobSettings) -> Result<()> {
        let flags = [("--console", &self.args.console), ("--pcap", &self.args.pcap)];
        let own = flags
            .into_iter()
            .filter_map(|(flag, path)| Some((flag.to_owned(), path.as_deref()?, Named::ByUser)));
        let jobs = settings::outputs(&settings.artifacts, settings.log.as_deref());
        settings::distinct(own.chain(jobs))
    }

    /// The machine of an image that was found already.
    pub(crate) fn of(
        args: VmArgs,
        image: Option<Image>,
        cloud: &CloudArgs,
        printer: Printer,
    ) -> Result<Self> {
        let told = cloud::is_given(cloud);
        let plan = Self { args, image, told, boot: Mutex::new(None), printer };
        hardware(&plan.args.hardware)?;
        match &plan.image {
            Some(image) if plan.boots_itself() => image.check(plan.args.net, plan.told)?,
            _ => cloud::refuse(cloud, "give --image DISK as well, and no --kernel")?,
        }
        Ok(plan)
    }

    /// The built-in guest.
    pub(crate) const fn builtin(hardware: HardwareArgs, printer: Printer) -> Self {
        let args = VmArgs::plain(hardware);
        Self { args, image: None, told: false, boot: Mutex::new(None), printer }
    }

    /// What the machine boots from. What is to be said of it is said once.
    fn boot(&self, report: &Report) -> Result<Boot> {
        let mut kept = lock(&self.boot);
        if let Some(boot) = &*kept {
            return Ok(boot.clone());
        }
        let boot = boot(self, report)?;
        let unwritable = |notice: &&CacheNotice| matches!(notice, CacheNotice::Unwritable { .. });
        let damaged = boot.notices().filter(|notice| !unwritable(notice));
        // Why one file is not kept is why none is.
        for notice in damaged.chain(boot.notices().find(unwritable)) {
            self.printer.note(&told(notice));
        }
        Ok(kept.insert(boot).clone())
    }

    /// No machine is started any more: temporary files that one boots from go.
    pub(crate) fn forget_boot(&self) {
        lock(&self.boot).take();
    }

    /// Whether the machine is booted by its image's own boot loader.
    pub(crate) const fn boots_itself(&self) -> bool {
        self.image.is_some() && self.args.kernel.is_none()
    }

    /// Whether nobody misses an orderly end: no disk of the machine's outlives it, and nobody
    /// outside has heard of it. Whoever brings an initial RAM disk may have given its end a sense.
    pub(crate) fn may_be_killed(&self) -> bool {
        let alone = !self.boots_itself() || self.args.net == Net::None;
        alone && self.args.initrd.is_none()
    }

    /// Whether such a machine may go on from a saved one.
    pub(crate) fn may_be_saved(&self) -> bool {
        let VmArgs { rootfs, kernel, initrd, console, .. } = &self.args;
        let plain = [rootfs, kernel, initrd, console].into_iter().all(Option::is_none);
        let kept = self.image.as_ref().is_none_or(|image| image.stored.is_some());
        let fixed = self.args.snapshots();
        let quiet = self.args.net == Net::None && !self.told && fixed;
        plain && kept && quiet && Arch::HOST.supports_snapshots()
    }
}

/// How many of the console's last lines are shown when a machine fails.
const CONSOLE_LINES: usize = 20;

/// What tells a machine from all others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    /// The address of the card to the service.
    card: MacAddress,
    /// The address of the card to the outside world, if there is one.
    outside: Option<MacAddress>,
}

impl Identity {
    /// An image that was kept may have been set up for the cards that it had then.
    pub(crate) fn of(plan: &Plan) -> Result<Self> {
        let kept = plan.image.as_ref().is_some_and(|image| image.stored.is_some());
        let address = |fixed| if kept { MacAddress::new(fixed) } else { Ok(MacAddress::random()) };
        let outside = plan.args.net == Net::User;
        Ok(Self {
            card: address(ADDRESS)?,
            outside: outside.then(|| address(OUTSIDE_ADDRESS)).transpose()?,
        })
    }

    /// Tells a cloud image of the cards that it has.
    pub(crate) fn tell(&self, cloud: Cloud) -> Cloud {
        let address = Some(nic::GuestAddress::default().get());
        let cloud = cloud.card(CloudCard { mac: self.card.bytes(), address });
        match self.outside {
            Some(mac) => cloud.card(CloudCard { mac: mac.bytes(), address: None }),
            None => cloud,
        }
    }
}

/// Describes the machine; `card` is its end of the network card. Without a job it is one that
/// may be saved: nothing of it differs from the next. Blocks: looks for tools and may build the
/// initramfs.
pub(crate) fn describe(
    plan: &Plan,
    job: Option<(&JobSettings, &Identity)>,
    card: UnixStream,
) -> Result<MachineSpec> {
    let args = &plan.args;
    let (cpus, memory) = hardware(&args.hardware)?;
    let address = match job {
        Some((_, identity)) => identity.card,
        None => MacAddress::new(ADDRESS)?,
    };
    let report = metaservice_qemu::find();
    let Finding::Found(qemu) = &report.qemu else { return Err(missing(&report)) };
    let mut spec = MachineSpec::new(qemu, plan.boot(&report)?)
        .cpus(cpus)
        .memory(memory)
        .accelerator(match args.hardware.accel {
            Accel::Auto => Accelerator::Auto,
            Accel::Kvm => Accelerator::Kvm,
            Accel::Tcg => Accelerator::Tcg,
        })
        .network(match args.net {
            Net::None => Network::None,
            Net::User => Network::User,
        })
        .card(Card::new(card.into(), address));
    for word in &args.publish {
        spec = spec.publish(published(word)?);
    }
    if let Some((settings, identity)) = job {
        spec = identify(spec, settings, identity);
    }
    if let Some(image) = &plan.image {
        spec = spec.disk(disk(&image.disk)?);
        if args.kernel.is_some() {
            spec = spec.root(Root::Disk);
        }
    }
    if let Some(folder) = &args.rootfs {
        let visibility = args.show.iter().fold(Visibility::new(), Visibility::show);
        let visibility = args.hide.iter().fold(visibility, Visibility::hide);
        spec = spec.root(Root::Folder(folder.clone())).visibility(visibility);
    }
    Ok(spec)
}

/// The disk of a machine from an image.
pub(crate) fn disk(image: &metaservice_image::Disk) -> Result<Disk> {
    let format = match image.format() {
        Format::Raw => DiskFormat::Raw,
        Format::Qcow2 => DiskFormat::Qcow2,
        Format::Vmdk => DiskFormat::Vmdk,
        Format::Vhdx => DiskFormat::Vhdx,
    };
    let disk = Disk::new(image.path(), format).refers_to_files(image.refers_to_files());
    Ok(match image.size()? {
        Some(size) => disk.size(size),
        None => disk,
    })
}

/// What can be told of the hardware before anything is looked for.
fn hardware(args: &HardwareArgs) -> Result<(Cpus, Memory)> {
    let cpus = Cpus::new(args.cpus).context("in --cpus")?;
    Ok((cpus, Memory::parse(&args.memory).context("in --memory")?))
}

/// What tells the machine of a job from all others.
fn identify(mut spec: MachineSpec, settings: &JobSettings, identity: &Identity) -> MachineSpec {
    spec = spec.hostname(&settings.name).console_limit(settings.bounds.console);
    if let Some(address) = identity.outside {
        spec = spec.user_address(address);
    }
    match &settings.cloud {
        Some(cloud) => spec.uuid(SystemUuid::from(cloud.system_uuid())),
        None => spec,
    }
}

/// A port that leads to one of the guest's: `[ADDR:]PORT:GUEST_PORT[/tcp|/udp]`.
fn published(word: &str) -> Result<Publish> {
    let parse = || {
        let (ports, transport) = match word.rsplit_once('/') {
            Some((ports, "tcp")) => (ports, Transport::Tcp),
            Some((ports, "udp")) => (ports, Transport::Udp),
            Some(_) => return None,
            None => (word, Transport::Tcp),
        };
        let (host, guest_port) = ports.rsplit_once(':')?;
        let (address, own) = match host.rsplit_once(':') {
            Some((address, own)) => (address.parse().ok()?, own),
            None => (Ipv4Addr::LOCALHOST, host),
        };
        let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
        Some(Publish { transport, address, port: port(own)?, guest_port: port(guest_port)? })
    };
    parse().with_context(|| format!("in --publish: {word:?} is not [IPV4:]PORT:GUEST_PORT[/udp]"))
}

fn boot(plan: &Plan, report: &Report) -> Result<Boot> {
    let args = &plan.args;
    let builtin = args.kernel.as_deref().is_none_or(|kernel| kernel == Path::new(BUILTIN));
    if plan.boots_itself() {
        return Ok(Boot::Firmware);
    }
    if let (Some(kernel), false) = (&args.kernel, builtin) {
        let Some(initrd) = &args.initrd else {
            bail!("--kernel {} needs the --initrd that belongs to it", kernel.display());
        };
        let boot =
            Boot::Direct { kernel: kernel.clone().into(), initramfs: None, arguments: Vec::new() };
        return Ok(boot.initramfs(initrd));
    }
    let tools = report.require().map_err(|missing| hinted(&missing))?;
    let kernel = if args.kaslr { Boot::from_compressed } else { Boot::from_kernel };
    Ok(kernel(&tools.kernel).initramfs(match &args.initrd {
        Some(initrd) => initrd.clone().into(),
        None => build_initramfs(plan, &tools)?,
    }))
}

fn build_initramfs(plan: &Plan, tools: &Tools) -> Result<BootFile> {
    let mut contents = initramfs::Contents::new(AGENT.to_vec(), tools);
    if plan.args.rootfs.is_some() {
        contents = contents.need(ModuleNeed::SharedFolder);
    }
    if plan.image.is_some() {
        contents = contents.need(ModuleNeed::Disk);
    }
    Ok(initramfs::build(&contents)?)
}

fn told(notice: &CacheNotice) -> String {
    match notice {
        CacheNotice::Damaged(path) => {
            format!("{} was damaged, and has been made anew", path.display())
        }
        CacheNotice::Unwritable { path, why } => {
            let path = path.display();
            format!("the cache cannot be written, and a temporary file is used: {path}: {why}")
        }
    }
}

fn missing(report: &Report) -> Error {
    match report.require() {
        Err(missing) => hinted(&missing),
        Ok(_) => Error::msg("QEMU is missing"),
    }
}

/// What to do about a machine that does not start.
pub(crate) fn not_started(error: StartError) -> Error {
    let hint = match &error {
        StartError::NoMemory(_) => "give the machine less by --memory SIZE",
        StartError::PortTaken { .. } => "publish another one: --publish PORT:GUEST_PORT",
        _ => return error.into(),
    };
    Error::new(Hint(hint.to_owned())).context(error)
}

fn hinted(missing: &MissingTools) -> Error {
    Error::new(Hint(missing.hint.clone())).context(missing.to_string())
}

/// The service's end of the network card and the task that drives it.
pub(crate) fn attach(
    pcap: Option<nic::Pcap>,
    limits: nic::Limits,
    socket: UnixStream,
    stale: Vec<nic::StaleConnection>,
) -> Result<(nic::Nic, nic::Driver)> {
    socket.set_nonblocking(true).context("cannot set up the network card")?;
    let socket = tokio::net::UnixStream::from_std(socket)?;
    let config = nic::Config::default().limits(limits).stale_connections(stale);
    let config = match pcap {
        Some(pcap) => config.pcap(pcap),
        None => config,
    };
    Ok(nic::attach(socket, config))
}

/// The capture file, if one is asked for. That it has reached its bound is told once. Waits for the
/// reader of a FIFO.
pub(crate) async fn pcap(
    args: &VmArgs,
    bounds: &Bounds,
    printer: Printer,
) -> Result<Option<nic::Pcap>> {
    let Some(path) = args.pcap.clone() else { return Ok(None) };
    let file = output("--pcap", &path).await?;
    let bound = bounds.pcap;
    let told = move || is_full("--pcap", &path, bound, printer);
    Ok(Some(nic::Pcap::new(Slow(file)).limit(bound, told)))
}

/// A file whose writes may wait for a reader: the thread that writes gives its tasks to another.
struct Slow(std::fs::File);

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        tokio::task::block_in_place(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A machine that writes its console to the file, if one is asked for. Waits for the reader of a
/// FIFO.
pub(crate) async fn with_console(args: &VmArgs, spec: MachineSpec) -> Result<MachineSpec> {
    let Some(path) = &args.console else { return Ok(spec) };
    Ok(spec.console_log(output("--console", path).await?))
}

async fn output(flag: &str, path: &Path) -> Result<std::fs::File> {
    let owned = path.to_owned();
    tracing::debug!(flag, path = %path.display(), "opening a file to write to");
    let file = tokio::task::spawn_blocking(move || destination::open_output(&owned)).await?;
    file.with_context(|| format!("cannot write {flag} {}", path.display()))
}

/// Tells once that the console's file has reached its bound, if there is one and it does.
pub(crate) fn watch_console(args: &VmArgs, bounds: &Bounds, machine: &Machine, printer: Printer) {
    let Some(path) = args.console.clone() else { return };
    let (console, bound) = (machine.console(), bounds.console);
    tokio::spawn(async move {
        console.log_ended().await;
        is_full("--console", &path, bound, printer);
    });
}

fn is_full(flag: &str, path: &Path, bound: u64, printer: Printer) {
    let name = flag.trim_start_matches('-');
    let path = path.display();
    printer.note(&format!("{flag} {path} ends at {bound} bytes: more by --limit {name}=SIZE"));
    printer.event("bounded", json!({ "bound": name, "bytes": bound }));
}

/// What is known of a machine whose guest is silent.
pub(crate) fn condition(machine: &Machine) -> String {
    match machine.console().tail(CONSOLE_LINES) {
        lines if lines.is_empty() => "; the machine runs".to_owned(),
        lines => {
            let lines = lines.join("\n  ");
            format!("; the machine runs; last console lines:\n  {}", printable(&lines))
        }
    }
}

/// What `inspect` shows of a machine that runs.
pub(crate) fn tell(plan: &Plan, machine: &Machine, restored: bool) -> serde_json::Value {
    let VmArgs { rootfs, kernel, net, hardware: wanted, .. } = &plan.args;
    let memory = hardware(wanted).map(|(_, memory)| memory.mebibytes() << 20).ok();
    let stored = plan.image.as_ref().and_then(|image| image.stored.as_ref());
    let image = match (&plan.args.image, rootfs) {
        (Some(image), _) => image.display().to_string(),
        (None, Some(folder)) => folder.display().to_string(),
        // An image that is being prepared has no word on the command line.
        (None, None) => stored.map_or_else(|| BUILTIN.to_owned(), |image| image.digest.to_string()),
    };
    json!({
        "cpus": wanted.cpus,
        "memory": memory,
        "image": image,
        "digest": stored.map(|image| image.digest.to_string()),
        "kernel": kernel,
        "network": if *net == Net::User { "user" } else { "none" },
        "accelerator": if machine.accelerator().kvm { "kvm" } else { "tcg" },
        "snapshot": restored,
    })
}

/// What went wrong, with what the guest's console said last.
pub(crate) fn failure(what: &str, machine: &Machine) -> Error {
    let lines = machine.console().tail(CONSOLE_LINES);
    if lines.is_empty() {
        return Error::msg(format!("{what}; its console is empty"));
    }
    Error::msg(format!("{what}; last console lines:\n  {}", lines.join("\n  ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_port_has_an_address_and_a_protocol_or_not() {
        let parsed = |word: &str| {
            let Publish { transport, address, port, guest_port } = published(word).unwrap();
            (transport, address.to_string(), port, guest_port)
        };
        assert_eq!(parsed("8080:80"), (Transport::Tcp, "127.0.0.1".into(), 8080, 80));
        assert_eq!(parsed("0.0.0.0:53:5353/udp"), (Transport::Udp, "0.0.0.0".into(), 53, 5353));
        assert_eq!(parsed("127.0.0.2:1:2/tcp").1, "127.0.0.2");
        for wrong in [
            "",
            "80",
            ":80",
            "80:",
            "0:80",
            "80:0",
            "80:65536",
            "[::1]:1:2",
            "a:1:2",
            "1:2/sctp",
            "1:2/",
            "1,x:2",
            "1:2:3:4",
            "1.2.3:1:2",
        ] {
            assert!(published(wrong).is_err(), "{wrong}");
        }
    }
}
