//! What a machine boots from, and what its commands see as `/`.

use std::path::PathBuf;

use crate::arch::Arch;
use crate::cache::boot_file::{BootFile, CacheNotice};
use crate::find::kernel::Kernel;
use crate::kernel::unpacked;

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
            kernel: match kernel.arch {
                Arch::X86_64 => unpacked(&kernel.image),
                Arch::Aarch64 => kernel.image.clone().into(),
            },
            initramfs: None,
            arguments: routing_argument(kernel.arch),
        }
    }

    /// Boots a distribution's kernel as it comes, which finds random addresses for itself while it
    /// extracts itself. Under emulation that takes as long as all the rest of the boot.
    #[must_use]
    pub fn from_compressed(kernel: &Kernel) -> Self {
        Self::Direct {
            kernel: kernel.image.clone().into(),
            initramfs: None,
            arguments: routing_argument(kernel.arch),
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

/// Has an x86 kernel read from a table which interrupt a device has. Without the argument, it runs
/// an ACPI program for each device, which takes 0.15 s each under emulation.
fn routing_argument(arch: Arch) -> Vec<String> {
    match arch {
        Arch::X86_64 => vec!["acpi=noirq".to_owned()],
        Arch::Aarch64 => Vec::new(),
    }
}
