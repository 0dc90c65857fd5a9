//! QEMU's command line, and that of the kernel.
//!
//! Owns each word that QEMU gets. Paths become absolute, and commas in them are doubled, as QEMU
//! requires. A kernel argument with a blank is an error.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::confine::confinement::Export;
use crate::spec::MachineSpec;
use crate::spec::accelerator::AcceleratorChoice;
use crate::spec::boot::{Boot, Root};
use crate::spec::error::InvalidSpec;
use crate::spec::share::Share;
use crate::spec::snapshot::{SnapshotFiles, SnapshotUse};

/// The longest kernel command line of x86, with its final zero byte.
const MAX_COMMAND_LINE: usize = 2048;

/// Kernel arguments of each machine. The console is quiet, because each line on the serial port
/// costs the guest time. A panic ends the machine. Random numbers are available at once. The
/// self-tests of ciphers are off: they take 0.2 s under emulation.
const KERNEL_ARGUMENTS: &str = "quiet panic=-1 reboot=t random.trust_cpu=on cryptomgr.notests";

/// What QEMU inherits: file descriptors, and the shared directories.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Inherited<'a> {
    pub(crate) monitor: RawFd,
    pub(crate) console: RawFd,
    pub(crate) card: Option<RawFd>,
    /// A file without a name that takes the guest's writes to its disk. Without it, QEMU creates a
    /// temporary file.
    pub(crate) scratch: Option<RawFd>,
    /// The directory of each 9p device. Without, they are left open: for a key.
    pub(crate) exports: &'a [Export],
}

/// The processor to emulate: everything that QEMU can emulate, but for ERMS and FSRM. With these,
/// a Linux guest copies single bytes, which takes twice as long under emulation.
const fn emulated_cpu(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "max,-erms,-fsrm",
        Arch::Aarch64 => "max",
    }
}

/// The machine to emulate. On x86 it is a PC, not the smaller `microvm`, whose only clock is the
/// PIT. With the PIT, a kernel under emulation on a busy host fails to calibrate its own clock, and
/// hangs.
const fn machine_type(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "pc,usb=off,vmport=off",
        Arch::Aarch64 => "virt",
    }
}

/// Kernel arguments for the serial console and the timer. On a busy host an emulated timer can be
/// late: an x86 kernel must not conclude that it is broken. Other kernels do not know the argument
/// and would pass it to the init.
const fn arch_arguments(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "console=ttyS0 no_timer_check",
        Arch::Aarch64 => "console=ttyAMA0",
    }
}

pub(crate) fn qemu(
    spec: &MachineSpec,
    accelerator: &AcceleratorChoice,
    inherited: Inherited<'_>,
) -> Result<Vec<OsString>, InvalidSpec> {
    let mut words = Words::default();
    words.flags(&["-nodefaults", "-no-user-config", "-no-reboot"]);
    words.option("-display", "none");
    memory(&mut words, spec);
    words.option("-accel", if accelerator.kvm { "kvm" } else { "tcg" });
    words.option("-cpu", if accelerator.kvm { "host" } else { emulated_cpu(spec.qemu.arch) });
    words.option("-smp", spec.cpus.count().to_string());
    words.option("-m", format!("{}M", spec.memory.mebibytes()));
    // QEMU needs none of these. A guest that breaks into QEMU must not have them.
    words.option(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );

    words.option("-chardev", format!("socket,id=monitor,fd={}", inherited.monitor));
    words.option("-mon", "chardev=monitor,mode=control");
    words.option("-chardev", format!("socket,id=console,fd={}", inherited.console));
    words.option("-serial", "chardev:console");
    words.option("-device", "virtio-rng-pci").option("-device", "pvpanic-pci");
    if spec.snapshot.is_some() {
        // A new number in each machine. By it, a kernel learns that it was restored.
        words.option("-device", "vmgenid,guid=auto");
    }

    if let (Some(card), Some(fd)) = (&spec.card, inherited.card) {
        words.option("-netdev", format!("stream,id=service,server=off,addr.type=fd,addr.str={fd}"));
        // Without an option ROM: nothing boots from this card.
        let (mac, mtu) = (card.address, card.mtu);
        words.option(
            "-device",
            format!("virtio-net-pci,netdev=service,mac={mac},host_mtu={mtu},romfile="),
        );
    }
    if let Some(uuid) = spec.uuid {
        words.option("-smbios", format!("type=1,uuid={uuid},serial={uuid}"));
    }
    disk(&mut words, spec, inherited.scratch);
    shares(&mut words, spec, inherited.exports);
    match &spec.boot {
        Boot::Firmware if spec.disk.is_none() => return Err(InvalidSpec::NothingToBoot),
        Boot::Firmware => {}
        Boot::Direct { kernel, initramfs, arguments } => {
            words.option("-kernel", existing("the kernel", kernel.path())?);
            if let Some(initramfs) = initramfs {
                words.option("-initrd", existing("the initramfs", initramfs.path())?);
            }
            words.option("-append", command_line(spec, arguments)?);
        }
    }
    Ok(words.0)
}

/// The disk. The guest's writes are lost when QEMU ends, in whatever way, unless they must be kept.
/// They go to a file without a name over the image, or, with `snapshot=on`, to a temporary file
/// that QEMU unlinks as soon as it is open. Both open the image read-only.
fn disk(words: &mut Words, spec: &MachineSpec, scratch: Option<RawFd>) {
    let Some(disk) = &spec.disk else { return };
    if let Some(fd) = scratch {
        words.option("-add-fd", format!("fd={fd},set=1"));
        // The file is of no use after a crash of the host, so nothing is flushed.
        let drive =
            "if=none,id=disk,cache=unsafe,auto-read-only=off,format=qcow2,file=/dev/fdset/1";
        words.option("-drive", drive).option("-device", "virtio-blk-pci,drive=disk");
        return;
    }
    let (stays, file, format) = match &spec.snapshot {
        Some(SnapshotUse::Create(SnapshotFiles { disk: Some(file), .. })) => {
            (true, file.as_path(), "qcow2")
        }
        Some(SnapshotUse::Restore(SnapshotFiles { disk: Some(file), .. }, _)) => {
            (false, file.as_path(), "qcow2")
        }
        _ => (spec.keeps_disk, disk.path(), disk.format().name()),
    };
    let stays = if stays { "discard=unmap,detect-zeroes=unmap" } else { "snapshot=on" };
    let start = format!("if=none,id=disk,{stays},format={format},file=");
    words.option("-drive", with_path(&start, file));
    words.option("-device", "virtio-blk-pci,drive=disk");
}

/// The 9p devices. They come last, so that no other device has another address because of them.
fn shares(words: &mut Words, spec: &MachineSpec, exports: &[Export]) {
    let open = Export::default();
    for number in 0..spec.shares.len().max(spec.share_devices) {
        let Export { path, refuses_others } = exports.get(number).unwrap_or(&open);
        let writable = spec.shares.get(number).is_some_and(|share| share.writable);
        let others = if *refuses_others { "forbid" } else { "remap" };
        let readonly = if writable { "off" } else { "on" };
        let start = format!(
            "local,id=share{number},security_model=none,readonly={readonly},multidevs={others},path="
        );
        let tag = Share::tag(number);
        words.option("-fsdev", with_path(&start, path));
        words.option("-device", format!("virtio-9p-pci,fsdev=share{number},mount_tag={tag}"));
    }
}

/// The machine type, and the file of the memory. For a new snapshot, the memory is shared with its
/// file, and QEMU leaves it out of the state. In a restored machine, it is a private view of the
/// file, copied on write.
fn memory(words: &mut Words, spec: &MachineSpec) {
    let machine = machine_type(spec.qemu.arch);
    let (file, share) = match &spec.snapshot {
        None => {
            words.option("-machine", machine);
            return;
        }
        Some(SnapshotUse::Create(files)) => (&files.memory, "on"),
        Some(SnapshotUse::Restore(files, _)) => {
            // QEMU waits until the monitor names the source.
            words.option("-incoming", "defer");
            (&files.memory, "off")
        }
    };
    words.option("-machine", format!("{machine},memory-backend=memory"));
    let size = spec.memory.mebibytes();
    let start = format!("memory-backend-file,id=memory,size={size}M,share={share},mem-path=");
    words.option("-object", with_path(&start, file));
}

/// The kernel command line: the arguments of this crate, those for the init, and the caller's.
fn command_line(spec: &MachineSpec, arguments: &[String]) -> Result<String, InvalidSpec> {
    let mut line = format!("{} {KERNEL_ARGUMENTS}", arch_arguments(spec.qemu.arch));
    match &spec.root {
        Root::Initramfs => {}
        Root::Disk if spec.disk.is_none() => return Err(InvalidSpec::NoRoot("a disk")),
        Root::Disk => write_argument(&mut line, "metaservice.root", "disk"),
    }
    if let Some((address, prefix)) = spec.guest_address {
        write_argument(&mut line, "metaservice.address", &format!("{address}/{prefix}"));
    }
    if let Some(address) = spec.guest_gateway {
        write_argument(&mut line, "metaservice.gateway", &address.to_string());
        write_argument(&mut line, "metaservice.resolver", &address.to_string());
    }
    if let Some(name) = &spec.hostname {
        if !is_host_name(name) {
            return Err(InvalidSpec::HostName(name.clone()));
        }
        write_argument(&mut line, "metaservice.hostname", name);
    }
    for argument in arguments {
        if argument.is_empty() || argument.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InvalidSpec::KernelArgument(argument.clone()));
        }
        line.push(' ');
        line.push_str(argument);
    }
    if line.len() >= MAX_COMMAND_LINE {
        return Err(InvalidSpec::CommandLineTooLong(line.len()));
    }
    Ok(line)
}

fn write_argument(line: &mut String, name: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = write!(line, " {name}={value}");
}

/// Whether the kernel (at most 64 bytes) and resolvers accept a host name.
fn is_host_name(name: &str) -> bool {
    name.len() <= 64
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

/// The absolute path of a file that must exist.
fn existing(what: &'static str, path: &Path) -> Result<PathBuf, InvalidSpec> {
    path.canonicalize().map_err(|source| InvalidSpec::Path { what, path: path.to_owned(), source })
}

/// An option with a path. Commas in the path are doubled.
fn with_path(start: &str, path: &Path) -> OsString {
    let mut bytes = start.as_bytes().to_vec();
    for &byte in path.as_os_str().as_bytes() {
        if byte == b',' {
            bytes.push(b',');
        }
        bytes.push(byte);
    }
    OsString::from_vec(bytes)
}

#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    fn flags(&mut self, flags: &[&str]) -> &mut Self {
        self.0.extend(flags.iter().map(OsString::from));
        self
    }

    fn option(&mut self, name: &str, value: impl AsRef<OsStr>) -> &mut Self {
        self.0.push(name.into());
        self.0.push(value.as_ref().to_owned());
        self
    }
}

#[cfg(test)]
mod tests;
