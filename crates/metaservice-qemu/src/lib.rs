//! QEMU machines: find the tools, build what a machine boots, start it, watch it, end it.
//!
//! This crate owns QEMU's command line and its monitor (QMP), the initramfs and the kernel command
//! line, snapshots, the confinement of QEMU, and its process. It does not know the guest protocol,
//! jobs, where disk images come from, or what goes over the network card, whose other end the
//! caller has. Linux only.
//!
//! The parts, in the order of their use:
//!
//! 1. [`find()`] searches for QEMU, a kernel and busybox, and reports what is missing.
//! 2. [`initramfs::build`] packs an init program, kernel modules and a userland.
//! 3. [`MachineSpec`] describes a machine, [`Disk`] its disk.
//! 4. [`Machine::start`] starts it. [`Machine::wait`], [`Machine::power_down`] and
//!    [`Machine::kill`] return its [`Exit`]. [`Machine::console`] has its output.
//! 5. [`SnapshotStore`] keeps snapshots, from which machines are restored in a fraction of a
//!    second.
//!
//! A machine leaves nothing behind. It has no sockets or pipes in the file system. Its scratch disk
//! is a file without a name. QEMU dies with the process that started it, however that process ends.
//! QEMU is confined to what its machine needs, as far as the host has the means: [`Boundary`].
//!
//! ```no_run
//! use std::os::unix::net::UnixStream;
//! use std::time::Duration;
//!
//! use metaservice_qemu::{Boot, Card, MacAddress, Machine, MachineSpec, find, initramfs};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let tools = find().require()?;
//! let contents = initramfs::Contents::new(std::fs::read("init")?, &tools);
//! let boot = Boot::from_kernel(&tools.kernel).initramfs(initramfs::build(&contents)?);
//! let (host, guest) = UnixStream::pair()?;
//! let card = Card::new(guest.into(), MacAddress::random());
//! let machine = Machine::start(MachineSpec::new(&tools.qemu, boot).card(card)).await?;
//! // Ethernet frames come and go through `host`.
//! let exit = machine.power_down(Duration::from_secs(5)).await;
//! println!("{}", exit.cause);
//! # drop(host); Ok(())
//! # }
//! ```

#![deny(unsafe_code)]
#![cfg(target_os = "linux")]

mod arch;
mod cache;
mod command_line;
mod confine;
mod decompress;
mod descriptors;
mod elf;
mod find;
pub mod initramfs;
mod kernel;
mod machine;
mod overlay;
mod qmp;
mod signals;
mod snapshot;
mod spec;

pub use arch::Arch;
pub use cache::boot_file::{BootFile, CacheNotice};
pub use confine::enter::without_descriptors;
pub use confine::error::ConfineError;
pub use descriptors::raise_descriptors;
pub use find::kernel::Kernel;
pub use find::qemu::{Qemu, QemuVersion};
pub use find::report::{Finding, MissingTools, Report, Tools};
pub use find::search::{Search, check, find};
pub use initramfs::modules::{ModuleError, ModuleNeed};
pub use machine::cgroup::CgroupError;
pub use machine::console::Console;
pub use machine::exit::{Exit, ExitCause};
pub use machine::life::MachineState;
pub use machine::out_of_memory::OutOfMemory;
pub use machine::start::StartError;
pub use machine::state::StateError;
pub use machine::{CommandFailed, Machine};
pub use signals::reset_signals;
pub use snapshot::{
    InUse, Snapshot, SnapshotDraft, SnapshotError, SnapshotKey, SnapshotStore, StoreLock,
    StoredSnapshot,
};
pub use spec::MachineSpec;
pub use spec::accelerator::{Accelerator, AcceleratorChoice, AcceleratorError};
pub use spec::boot::{Boot, Root};
pub use spec::boundary::Boundary;
pub use spec::disk::{Disk, DiskFormat};
pub use spec::error::InvalidSpec;
pub use spec::hardware::{Cpus, InvalidHardware, MacAddress, Memory, SystemUuid};
pub use spec::network::Card;
pub use spec::share::Share;
pub use spec::snapshot::SnapshotFiles;
pub use spec::visibility::Visibility;
