//! What a machine boots from, and what its commands see as `/`.

use crate::arch::Arch;
use crate::cache::boot_file::{BootFile, CacheNotice};
use crate::find::kernel::Kernel;
use crate::kernel::unpacked;

/// What a machine boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// QEMU loads a kernel.
    Direct {
        /// The kernel image.
        kernel: BootFile,
        /// The initramfs.
        initramfs: Option<BootFile>,
        /// Kernel arguments after those of this crate.
        arguments: Vec<String>,
    },
    /// The firmware boots from the disk.
    Firmware,
}

impl Boot {
    /// Boots the kernel of a distribution. On x86 the kernel is first taken out of its
    /// self-extracting image, once, and kept in the cache: the extraction is the slowest part of a
    /// guest's boot. This blocks for about a second the first time. The kernel also reads interrupt
    /// routing from a table (`acpi=noirq`), which is faster.
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

    /// Boots the kernel of a distribution as it comes. While it extracts itself, it chooses random
    /// addresses (KASLR). Under emulation that takes as long as the rest of the boot.
    #[must_use]
    pub fn from_compressed(kernel: &Kernel) -> Self {
        Self::Direct {
            kernel: kernel.image.clone().into(),
            initramfs: None,
            arguments: routing_argument(kernel.arch),
        }
    }

    /// Sets the initramfs. Firmware has none, so it changes nothing there.
    #[must_use]
    pub fn initramfs(mut self, file: impl Into<BootFile>) -> Self {
        if let Self::Direct { initramfs, .. } = &mut self {
            *initramfs = Some(file.into());
        }
        self
    }

    /// What a user should know about the files that it boots from.
    pub fn notices(&self) -> impl Iterator<Item = &CacheNotice> {
        let files = match self {
            Self::Direct { kernel, initramfs, .. } => [Some(kernel), initramfs.as_ref()],
            Self::Firmware => [None, None],
        };
        files.into_iter().flatten().filter_map(BootFile::notice)
    }

    /// Adds a kernel argument. Firmware takes none, so it changes nothing there.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        if let Self::Direct { arguments, .. } = &mut self {
            arguments.push(argument.into());
        }
        self
    }
}

/// What the guest's init makes `/`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Root {
    /// The initramfs.
    #[default]
    Initramfs,
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
