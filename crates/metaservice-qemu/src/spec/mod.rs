//! The description of a machine.
//!
//! Owns plain data and its defaults. [`command_line`](crate::command_line) checks it against the
//! host and turns it into QEMU's arguments.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `boot` | kernel, initramfs, root |
//! | `hardware`, `accelerator` | memory, processors, addresses, and how they run |
//! | `disk`, `snapshot` | the disk, and the files of a snapshot |
//! | `network` | the network card |
//! | `share` | directories of the host |
//! | `boundary`, `visibility` | what confines QEMU, and what a shared directory shows |
//! | `error` | why a description is invalid |

pub(crate) mod accelerator;
pub(crate) mod boot;
pub(crate) mod boundary;
pub(crate) mod disk;
pub(crate) mod error;
pub(crate) mod hardware;
pub(crate) mod network;
pub(crate) mod share;
pub(crate) mod snapshot;
pub(crate) mod visibility;

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use self::accelerator::Accelerator;
use self::boot::{Boot, Root};
use self::boundary::Boundary;
use self::disk::Disk;
use self::hardware::{Cpus, Memory, SystemUuid};
use self::network::Card;
use self::share::Share;
use self::snapshot::{SnapshotFiles, SnapshotUse};
use self::visibility::Visibility;
use crate::find::qemu::Qemu;

/// The description of a machine.
///
/// ```
/// use metaservice_qemu::{Boot, Cpus, MachineSpec, Memory, Qemu, QemuVersion};
///
/// let version = QemuVersion { major: 8, minor: 2 };
/// let qemu = Qemu::new("/usr/bin/qemu-system-x86_64", version);
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
    /// Whether the guest's writes to the disk are kept.
    pub(crate) keeps_disk: bool,
    pub(crate) root: Root,
    pub(crate) shares: Vec<Share>,
    /// How many 9p devices the machine has at least.
    pub(crate) share_devices: usize,
    pub(crate) visibility: Visibility,
    /// What confines QEMU. `None`: everything that the host has.
    pub(crate) boundary: Option<Boundary>,
    pub(crate) uuid: Option<SystemUuid>,
    pub(crate) card: Option<Card>,
    pub(crate) guest_address: Option<(Ipv4Addr, u8)>,
    pub(crate) guest_gateway: Option<Ipv4Addr>,
    pub(crate) hostname: Option<String>,
    pub(crate) console_log: Option<File>,
    pub(crate) console_limit: u64,
    pub(crate) scratch: Option<PathBuf>,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) snapshot: Option<SnapshotUse>,
}

impl MachineSpec {
    /// A machine with one processor and 1 GiB of memory, and without disk and card.
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
            shares: Vec::new(),
            share_devices: 0,
            visibility: Visibility::default(),
            boundary: None,
            uuid: None,
            card: None,
            guest_address: None,
            guest_gateway: None,
            hostname: None,
            console_log: None,
            console_limit: u64::MAX,
            scratch: None,
            cgroup: None,
            snapshot: None,
        }
    }

    /// Sets the accelerator.
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

    /// Adds a disk that QEMU never writes: the guest's writes are lost with the machine.
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

    /// Adds a directory of the host. The guest mounts the first one by the tag
    /// [`Share::tag(0)`](Share::tag).
    #[must_use]
    pub fn share(mut self, share: Share) -> Self {
        self.shares.push(share);
        self
    }

    /// Sets how many 9p devices the machine has at least. Those without a directory have an empty
    /// one.
    #[must_use]
    pub const fn share_devices(mut self, count: usize) -> Self {
        self.share_devices = count;
        self
    }

    /// Sets what the [shared directories](Share) show.
    #[must_use]
    pub fn visibility(mut self, visibility: Visibility) -> Self {
        self.visibility = visibility;
        self
    }

    /// Sets the UUID in the firmware tables. Its text becomes the serial number.
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

    /// Sets the address of the card and its prefix length, for the guest's init.
    #[must_use]
    pub const fn guest_address(mut self, address: Ipv4Addr, prefix: u8) -> Self {
        self.guest_address = Some((address, prefix));
        self
    }

    /// Sets the gateway of the guest's default route, which is also its resolver, for the guest's
    /// init.
    #[must_use]
    pub const fn guest_gateway(mut self, address: Ipv4Addr) -> Self {
        self.guest_gateway = Some(address);
        self
    }

    /// Sets the host name, for the guest's init.
    #[must_use]
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = Some(name.into());
        self
    }

    /// Sets what confines QEMU, instead of [everything that the host has](Boundary::of_host).
    #[must_use]
    pub const fn boundary(mut self, boundary: Boundary) -> Self {
        self.boundary = Some(boundary);
        self
    }

    /// Writes the output of the console to a file that is open for writing, without changes: it
    /// contains whatever bytes the guest sends.
    #[must_use]
    pub fn console_log(mut self, file: File) -> Self {
        self.console_log = Some(file);
        self
    }

    /// Limits the size of the [console's file](Self::console_log). After the last byte comes one
    /// line that says so. [`Console::log_ended`](crate::Console::log_ended) waits for that.
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

    /// Sets the directory of the scratch file, which takes the guest's writes to its disk. The
    /// default is `$TMPDIR`, or else `/var/tmp`.
    #[must_use]
    pub fn scratch(mut self, directory: impl Into<PathBuf>) -> Self {
        self.scratch = Some(directory.into());
        self
    }

    /// Sets the directory of a cgroup (v2) that QEMU joins right after it is spawned. The group
    /// outlives the machine: who made it removes it. Without this, QEMU is in the group of this
    /// process.
    #[must_use]
    pub fn cgroup(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cgroup = Some(directory.into());
        self
    }
}
