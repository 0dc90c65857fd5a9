//! What a machine is made of.
//!
//! Owns the description and its defaults; [`arguments`](crate::command_line) turns it into
//! QEMU's words and checks it against the host while it does.

pub(crate) mod accelerator;
pub(crate) mod disk;
pub(crate) mod hardware;
pub(crate) mod visibility;

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::cache::{BootFile, CacheNotice};
use crate::confine::Boundary;
use crate::find::{Kernel, Qemu};
use crate::kernel;
use crate::spec::accelerator::{Accelerator, AcceleratorError};
use crate::spec::disk::Disk;
use crate::spec::hardware::{Cpus, MacAddress, Memory, SystemUuid};
use crate::spec::visibility::Visibility;

/// The largest MTU that a virtio card takes and a 16-bit IP length allows for.
const JUMBO_MTU: u16 = 65520;

/// A description that no machine can be started from.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSpec {
    /// The accelerator cannot be had.
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
    /// A kernel, initramfs or folder is not there.
    #[error("cannot use {what} {path}")]
    Path {
        /// What it was to be.
        what: &'static str,
        /// The path as given.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The root file system is to come from a disk or folder that the machine does not have.
    #[error("the root file system is to come from {0}, which the machine does not have")]
    NoRoot(&'static str),
    /// Firmware finds nothing to boot without a disk.
    #[error("a machine without a kernel needs a disk to boot from")]
    NothingToBoot,
    /// A port is to lead into a machine that no network leads into.
    #[error("a published port needs the user network")]
    NothingToPublish,
    /// Not a host name.
    #[error("{0:?} is no host name")]
    HostName(String),
    /// A kernel argument with a character that would end it or the command line.
    #[error("{0:?} cannot be a kernel argument")]
    KernelArgument(String),
    /// The host's kernel file systems are shown to no guest.
    #[error("{0} is the host kernel's own and cannot be shown to a guest")]
    NotToBeShown(PathBuf),
    /// The guest mounts `/run` and `/tmp` over those of the host.
    #[error("{0} cannot be shown: the guest has its own /run and /tmp")]
    Covered(PathBuf),
    /// A path that is to be shown, within one that is hidden.
    #[error("{path} cannot be shown without {above}, which is hidden")]
    WithinHidden {
        /// The path.
        path: PathBuf,
        /// What it is in.
        above: PathBuf,
    },
    /// The host's table of mounts cannot be read.
    #[error("cannot read /proc/self/mountinfo")]
    Mounts(#[source] std::io::Error),
    /// Longer than a kernel reads.
    #[error("a kernel command line of {0} bytes is too long")]
    CommandLineTooLong(usize),
}

/// Has the kernel read from a table which interrupt a device has. ACPI's answer is a program, which
/// is run anew for each device that is made ready: 0.15 s each where it is emulated.
const ROUTING_ARGUMENT: Option<&str> =
    if cfg!(target_arch = "x86_64") { Some("acpi=noirq") } else { None };

/// How a machine starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// QEMU loads a kernel.
    Direct {
        /// The kernel image.
        kernel: BootFile,
        /// The first file system.
        initramfs: Option<BootFile>,
        /// Kernel arguments after our own.
        arguments: Vec<String>,
    },
    /// The firmware boots the disk.
    Firmware,
}

impl Boot {
    /// Boots a distribution's kernel. On x86 it is taken out of its self-extracting image first,
    /// once, into the cache (blocks for about a second then), because that takes a guest longest;
    /// and it is told to read interrupt routing from a table (`acpi=noirq`), which costs it less.
    #[must_use]
    pub fn from_kernel(kernel: &Kernel) -> Self {
        Self::Direct {
            kernel: kernel::unpacked(&kernel.image),
            initramfs: None,
            arguments: ROUTING_ARGUMENT.into_iter().map(str::to_owned).collect(),
        }
    }

    /// Boots a distribution's kernel as it comes, which finds random addresses for itself while it
    /// extracts itself. Under emulation that takes as long as all the rest of the boot.
    #[must_use]
    pub fn from_compressed(kernel: &Kernel) -> Self {
        Self::Direct {
            kernel: kernel.image.clone().into(),
            initramfs: None,
            arguments: ROUTING_ARGUMENT.into_iter().map(str::to_owned).collect(),
        }
    }

    /// With this first file system. Firmware has none: nothing changes.
    #[must_use]
    pub fn initramfs(mut self, file: impl Into<BootFile>) -> Self {
        if let Self::Direct { initramfs, .. } = &mut self {
            *initramfs = Some(file.into());
        }
        self
    }

    /// What a user should know of the files that it boots from.
    pub fn notices(&self) -> impl Iterator<Item = &CacheNotice> {
        let files = match self {
            Self::Direct { kernel, initramfs, .. } => [Some(kernel), initramfs.as_ref()],
            Self::Firmware => [None, None],
        };
        files.into_iter().flatten().filter_map(BootFile::notice)
    }

    /// With one more kernel argument. Firmware takes none: nothing changes.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        if let Self::Direct { arguments, .. } = &mut self {
            arguments.push(argument.into());
        }
        self
    }
}

/// What a guest's command sees as `/`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Root {
    /// The initramfs itself.
    #[default]
    Initramfs,
    /// A folder of this host, shared read-only, under a layer that the guest writes to and
    /// that is gone with it.
    Folder(PathBuf),
    /// The root partition of the disk.
    Disk,
}

/// Whether the guest reaches more than the card's other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// No.
    #[default]
    None,
    /// By a second card with an address of its own, what this host reaches: QEMU opens the
    /// connections, as this user.
    User,
}

/// A port of this host that leads to one of the guest's, by the [user network](Network::User).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// Of which protocol.
    pub transport: Transport,
    /// The address of this host, of those that it has; unspecified is all of them.
    pub address: Ipv4Addr,
    /// The port of this host, not 0.
    pub port: u16,
    /// The port of the guest, not 0.
    pub guest_port: u16,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// The network card whose other end the caller holds.
#[derive(Debug)]
pub struct Card {
    pub(crate) stream: OwnedFd,
    pub(crate) address: MacAddress,
    pub(crate) mtu: u16,
}

impl Card {
    /// A card on one end of a connected stream socket. On the other end each Ethernet frame
    /// follows its length in four bytes, big-endian.
    #[must_use]
    pub fn new(stream: OwnedFd, address: MacAddress) -> Self {
        Self { stream, address, mtu: JUMBO_MTU }
    }

    /// The MTU that the guest is told, at least 68; 65520 if nobody says otherwise.
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu.clamp(68, JUMBO_MTU);
        self
    }
}

/// The files that hold the memory of a machine, and what it has written to its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFiles {
    pub(crate) memory: PathBuf,
    /// An image over that of the disk.
    pub(crate) disk: Option<PathBuf>,
}

/// How a machine uses a snapshot.
#[derive(Debug)]
pub(crate) enum SnapshotUse {
    /// It writes to the files of a new one.
    Create(SnapshotFiles),
    /// It starts from the files of one, which it never writes, and from the state of processors
    /// and devices.
    Restore(SnapshotFiles, Vec<u8>),
}

/// What a machine is made of.
///
/// ```
/// use metaservice_qemu::{Boot, Cpus, MachineSpec, Memory, Qemu, QemuVersion};
///
/// let qemu = Qemu {
///     path: "/usr/bin/qemu-system-x86_64".into(),
///     version: QemuVersion { major: 8, minor: 2 },
/// };
/// let spec = MachineSpec::new(&qemu, Boot::Firmware)
///     .cpus(Cpus::new(2).unwrap())
///     .memory(Memory::parse("2G").unwrap());
/// ```
#[derive(Debug)]
pub struct MachineSpec {
    pub(crate) qemu: Qemu,
    pub(crate) boot: Boot,
    pub(crate) accelerator: Accelerator,
    pub(crate) cpus: Cpus,
    pub(crate) memory: Memory,
    pub(crate) disk: Option<Disk>,
    /// Whether what is written to the disk stays.
    pub(crate) keeps_disk: bool,
    pub(crate) root: Root,
    pub(crate) visibility: Visibility,
    /// What confines QEMU; `None` is what the host offers.
    pub(crate) boundary: Option<Boundary>,
    pub(crate) network: Network,
    pub(crate) user_address: Option<MacAddress>,
    pub(crate) published: Vec<Publish>,
    pub(crate) uuid: Option<SystemUuid>,
    pub(crate) card: Option<Card>,
    pub(crate) guest_address: Option<(Ipv4Addr, u8)>,
    pub(crate) hostname: Option<String>,
    pub(crate) console_log: Option<File>,
    pub(crate) console_limit: u64,
    pub(crate) scratch: Option<PathBuf>,
    pub(crate) snapshot: Option<SnapshotUse>,
}

impl MachineSpec {
    /// A machine with one processor, 1 GiB of memory, and nothing else.
    #[must_use]
    pub fn new(qemu: &Qemu, boot: Boot) -> Self {
        Self {
            qemu: qemu.clone(),
            boot,
            accelerator: Accelerator::default(),
            cpus: Cpus::default(),
            memory: Memory::default(),
            disk: None,
            keeps_disk: false,
            root: Root::default(),
            visibility: Visibility::default(),
            boundary: None,
            network: Network::default(),
            user_address: None,
            published: Vec::new(),
            uuid: None,
            card: None,
            guest_address: None,
            hostname: None,
            console_log: None,
            console_limit: u64::MAX,
            scratch: None,
            snapshot: None,
        }
    }

    /// Sets how the machine is run.
    #[must_use]
    pub const fn accelerator(mut self, accelerator: Accelerator) -> Self {
        self.accelerator = accelerator;
        self
    }

    /// Sets the number of processors.
    #[must_use]
    pub const fn cpus(mut self, cpus: Cpus) -> Self {
        self.cpus = cpus;
        self
    }

    /// Sets the memory.
    #[must_use]
    pub const fn memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// Adds a disk, which is never written.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Adds a disk that the machine writes.
    #[must_use]
    pub fn writable_disk(mut self, disk: Disk) -> Self {
        self.disk = Some(disk);
        self.keeps_disk = true;
        self
    }

    /// Sets what the guest's command sees as `/`.
    #[must_use]
    pub fn root(mut self, root: Root) -> Self {
        self.root = root;
        self
    }

    /// Sets what a [shared folder](Root::Folder) shows.
    #[must_use]
    pub fn visibility(mut self, visibility: Visibility) -> Self {
        self.visibility = visibility;
        self
    }

    /// Sets whether the guest reaches more than the card's other end.
    #[must_use]
    pub const fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Sets the hardware address of the second card, that of the user network; QEMU's own choice if
    /// nobody says.
    #[must_use]
    pub const fn user_address(mut self, address: MacAddress) -> Self {
        self.user_address = Some(address);
        self
    }

    /// Opens a port of this host that leads into the guest.
    #[must_use]
    pub fn publish(mut self, publish: Publish) -> Self {
        self.published.push(publish);
        self
    }

    /// Sets what the firmware tables call the machine: its UUID, and the same as its serial number.
    #[must_use]
    pub const fn uuid(mut self, uuid: SystemUuid) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// Adds the network card.
    #[must_use]
    pub fn card(mut self, card: Card) -> Self {
        self.card = Some(card);
        self
    }

    /// Tells the init which address the card has, and how many bits of it are the network's.
    #[must_use]
    pub const fn guest_address(mut self, address: Ipv4Addr, prefix: u8) -> Self {
        self.guest_address = Some((address, prefix));
        self
    }

    /// Tells the init the host name.
    #[must_use]
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = Some(name.into());
        self
    }

    /// Confines QEMU with this instead of [all that the host offers](Boundary::of_host).
    #[must_use]
    pub const fn boundary(mut self, boundary: Boundary) -> Self {
        self.boundary = Some(boundary);
        self
    }

    /// Writes all that comes over the console to a file that is open for writing, as it comes:
    /// whatever bytes the guest sends.
    #[must_use]
    pub fn console_log(mut self, file: File) -> Self {
        self.console_log = Some(file);
        self
    }

    /// Limits the [console's file](Self::console_log): behind so many bytes it gets one more line,
    /// which says so, and nothing else. [`Console::log_ended`](crate::Console::log_ended) tells.
    #[must_use]
    pub const fn console_limit(mut self, bytes: u64) -> Self {
        self.console_limit = bytes;
        self
    }

    /// Has the machine write to the files of a new snapshot, so that
    /// [`Machine::save_state`](crate::Machine::save_state) works.
    #[must_use]
    pub fn snapshot_to(mut self, files: SnapshotFiles) -> Self {
        self.snapshot = Some(SnapshotUse::Create(files));
        self
    }

    /// Starts the machine from a snapshot instead of booting it. All other settings must be those
    /// of the machine that was saved.
    #[must_use]
    pub fn restore_from(mut self, files: SnapshotFiles, state: Vec<u8>) -> Self {
        self.snapshot = Some(SnapshotUse::Restore(files, state));
        self
    }

    /// The folder of the scratch file that takes what the guest writes to its disk. If nobody
    /// sets it: `$TMPDIR`, else `/var/tmp`.
    #[must_use]
    pub fn scratch(mut self, folder: impl Into<PathBuf>) -> Self {
        self.scratch = Some(folder.into());
        self
    }
}
