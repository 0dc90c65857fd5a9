//! The machine that the flags describe, and its network card.
//!
//! This is where the rooms meet: the virtual machine gets one end of a socket pair, the
//! network card the other, and the card's connections go to the service.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use metaservice_nic as nic;
use metaservice_vm::{
    Accelerator, Boot, Card, Cpus, Disk, Finding, MacAddress, MachineSpec, Memory, MissingTools,
    ModuleNeed, Network, Report, Root, Tools, initramfs,
};

use crate::agent::AGENT;
use crate::args::{Accel, Net, VmArgs};
use crate::printer::Hint;

/// The word that stands for our own kernel where a file could.
const BUILTIN: &str = "builtin";

/// The address of every machine that may be saved: alone on its wire, it needs none of its own.
const ADDRESS: [u8; 6] = [0x52, 0x54, 0, 169, 254, 2];

/// Describes the machine; `card` is its end of the network card. Without a name it is one that
/// may be saved: nothing of it differs from the next. Blocks: looks for tools and may build the
/// initramfs.
pub(crate) fn describe(
    args: &VmArgs,
    hostname: Option<&str>,
    card: UnixStream,
) -> Result<MachineSpec> {
    let address = match hostname {
        Some(_) => MacAddress::random(),
        None => MacAddress::new(ADDRESS)?,
    };
    let report = metaservice_vm::find();
    let Finding::Found(qemu) = &report.qemu else { return Err(missing(&report)) };
    let mut spec = MachineSpec::new(qemu, boot(args, &report)?)
        .cpus(Cpus::new(args.cpus).context("in --cpus")?)
        .memory(Memory::parse(&args.memory).context("in --memory")?)
        .accelerator(match args.accel {
            Accel::Auto => Accelerator::Auto,
            Accel::Kvm => Accelerator::Kvm,
            Accel::Tcg => Accelerator::Tcg,
        })
        .network(match args.net {
            Net::None => Network::None,
            Net::User => Network::User,
        })
        .card(Card::new(card.into(), address));
    if let Some(name) = hostname {
        spec = spec.hostname(name);
    }
    if let Some(image) = &args.image {
        spec = spec.disk(Disk::open(image).context("in --image")?);
        if args.kernel.is_some() {
            spec = spec.root(Root::Disk);
        }
    }
    if let Some(folder) = &args.rootfs {
        spec = spec.root(Root::Folder(folder.clone()));
    }
    if let Some(path) = &args.console {
        spec = spec.console_log(path);
    }
    Ok(spec)
}

fn boot(args: &VmArgs, report: &Report) -> Result<Boot> {
    let builtin = args.kernel.as_deref().is_none_or(|kernel| kernel == Path::new(BUILTIN));
    if args.image.is_some() && args.kernel.is_none() {
        return Ok(Boot::Firmware);
    }
    if let (Some(kernel), false) = (&args.kernel, builtin) {
        let Some(initrd) = &args.initrd else {
            bail!("--kernel {} needs the --initrd that belongs to it", kernel.display());
        };
        let boot = Boot::Direct { kernel: kernel.clone(), initramfs: None, arguments: Vec::new() };
        return Ok(boot.initramfs(initrd));
    }
    let tools = report.require().map_err(|missing| hinted(&missing))?;
    Ok(Boot::from_kernel(&tools.kernel).initramfs(match &args.initrd {
        Some(initrd) => initrd.clone(),
        None => build_initramfs(args, &tools)?,
    }))
}

fn build_initramfs(args: &VmArgs, tools: &Tools) -> Result<PathBuf> {
    let mut contents = initramfs::Contents::new(AGENT.to_vec(), tools);
    if args.rootfs.is_some() {
        contents = contents.need(ModuleNeed::SharedFolder);
    }
    if args.image.is_some() {
        contents = contents.need(ModuleNeed::Disk);
    }
    Ok(initramfs::build(&contents)?)
}

fn missing(report: &Report) -> Error {
    match report.require() {
        Err(missing) => hinted(&missing),
        Ok(_) => Error::msg("QEMU is missing"),
    }
}

fn hinted(missing: &MissingTools) -> Error {
    Error::new(Hint(missing.hint.clone())).context(missing.to_string())
}

/// The service's end of the network card and the task that drives it.
pub(crate) fn attach(
    args: &VmArgs,
    socket: UnixStream,
    orphans: Vec<nic::Orphan>,
) -> Result<(nic::Nic, nic::Driver)> {
    socket.set_nonblocking(true).context("cannot set up the network card")?;
    let socket = tokio::net::UnixStream::from_std(socket)?;
    let pcap = match &args.pcap {
        Some(path) => {
            let file = std::fs::File::create(path);
            let file = file.with_context(|| format!("cannot write --pcap {}", path.display()))?;
            Some(nic::Pcap::new(file))
        }
        None => None,
    };
    let config = nic::Config { pcap, orphans, ..nic::Config::default() };
    Ok(nic::attach(socket, config))
}
