//! Which kernel modules a machine needs, and their load order.
//!
//! Owns the reading of a kernel's module directory: `modules.dep` (dependencies), `modules.builtin`
//! (modules that need no loading) and the module files, compressed or not. The order is computed
//! here, on the host: the guest loads a flat list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::decompress::decompress;
use crate::elf::has_all_sections;

/// The largest module, uncompressed: 64 MiB.
const MAX_MODULE: u64 = 64 * 1024 * 1024;

/// A purpose for which a machine needs modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ModuleNeed {
    /// The virtio bus and network card. Always included.
    Base,
    /// A shared directory (9p) with a writable layer over it.
    SharedDirectory,
    /// A virtio disk and the usual file systems.
    Disk,
    /// The power button, the random source, and the panic device. No command waits for them. Always
    /// included, and loaded after the agent has started.
    Later,
}

impl ModuleNeed {
    /// The names, and whether the machine needs the module.
    const fn modules(self) -> &'static [(&'static str, bool)] {
        match self {
            Self::Base => &[
                ("virtio_pci", true),
                ("virtio_net", true),
                // DHCP clients need raw sockets.
                ("af_packet", false),
            ],
            Self::SharedDirectory => &[("9pnet_virtio", true), ("9p", true), ("overlay", true)],
            Self::Disk => &[
                ("virtio_blk", true),
                ("ext4", true),
                // ext4, xfs and btrfs request these at run time, so they are not listed as
                // dependencies.
                ("crc32c_generic", false),
                ("xfs", false),
                ("xxhash_generic", false),
                ("blake2b_generic", false),
                ("btrfs", false),
                ("overlay", false),
            ],
            Self::Later => &[
                ("virtio_rng", false),
                ("button", false),
                ("evdev", false),
                ("pvpanic-pci", false),
            ],
        }
    }
}

/// Kernel modules that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The module directory cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A required module is neither present nor built in.
    #[error("the kernel in {directory} has no module {name} and does not have it built in")]
    Missing {
        /// The module.
        name: String,
        /// The module directory of the kernel.
        directory: PathBuf,
    },
    /// The dependencies are circular, or deeper than those of any kernel.
    #[error("the dependencies of module {0} lead nowhere")]
    Circle(String),
    /// The file of a module is empty or cut off.
    #[error("{0} is no whole kernel module: install the kernel again")]
    Damaged(PathBuf),
    /// A compressed module that cannot be decompressed.
    #[error("cannot decompress {path} with {tool}: is it installed?")]
    Decompress {
        /// The module.
        path: PathBuf,
        /// The program that was used.
        tool: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The modules of one kernel.
pub(crate) struct ModuleIndex {
    directory: PathBuf,
    /// The path and the dependencies of each module, by its name.
    modules: BTreeMap<String, (String, Vec<String>)>,
    builtin: BTreeSet<String>,
}

impl ModuleIndex {
    pub(crate) fn read(directory: &Path) -> Result<Self, ModuleError> {
        let text = |name| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|source| ModuleError::Read { path, source })
        };
        Ok(Self::parse(
            directory,
            &text("modules.dep")?,
            &text("modules.builtin").unwrap_or_default(),
        ))
    }

    fn parse(directory: &Path, dependencies: &str, builtin: &str) -> Self {
        let mut modules = BTreeMap::new();
        for line in dependencies.lines() {
            let Some((path, needed)) = line.split_once(':') else { continue };
            let needed = needed.split_ascii_whitespace().map(name_of).collect();
            modules.insert(name_of(path), (path.to_owned(), needed));
        }
        Self {
            directory: directory.to_owned(),
            modules,
            builtin: builtin.lines().map(name_of).collect(),
        }
    }

    /// The files for `needs`. Each comes after its dependencies.
    pub(crate) fn in_load_order(
        &self,
        needs: &BTreeSet<ModuleNeed>,
    ) -> Result<Vec<PathBuf>, ModuleError> {
        let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
        for (name, required) in needs.iter().flat_map(|need| need.modules()) {
            let name = canonical(name);
            if self.builtin.contains(&name) {
                continue;
            }
            if !self.modules.contains_key(&name) {
                if *required {
                    return Err(ModuleError::Missing { name, directory: self.directory.clone() });
                }
                tracing::debug!(module = name, "left out: this kernel does not have it");
                continue;
            }
            self.visit(&name, &mut order, &mut seen, 0)?;
        }
        Ok(order.into_iter().map(|path| self.directory.join(path)).collect())
    }

    fn visit<'a>(
        &'a self,
        name: &str,
        order: &mut Vec<&'a str>,
        seen: &mut BTreeSet<String>,
        depth: usize,
    ) -> Result<(), ModuleError> {
        // Far deeper than any real dependencies.
        const MAX_DEPTH: usize = 64;
        if self.builtin.contains(name) || seen.contains(name) {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(ModuleError::Circle(name.to_owned()));
        }
        let Some((path, needed)) = self.modules.get(name) else {
            return Err(ModuleError::Missing {
                name: name.to_owned(),
                directory: self.directory.clone(),
            });
        };
        for dependency in needed {
            self.visit(dependency, order, seen, depth + 1)?;
        }
        seen.insert(name.to_owned());
        order.push(path);
        Ok(())
    }
}

/// The kernel's name of a module file: `kernel/x/virtio-rng.ko.xz` is `virtio_rng`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path).trim();
    canonical(file.split(".ko").next().unwrap_or(file))
}

/// Removes the signature at the end of a module. A kernel that need not verify signatures skips a
/// missing one. The module comes from the same package as the kernel, and under emulation the
/// verification takes a large part of the loading time.
fn without_signature(mut module: Vec<u8>) -> Vec<u8> {
    const MARK: &[u8] = b"~Module signature appended~\n";
    /// The header of the signature. Its last four bytes are the signature's length, big-endian.
    const HEAD: usize = 12;
    let length = module.strip_suffix(MARK).and_then(|rest| {
        let (rest, length) = rest.split_last_chunk::<4>()?;
        let signature = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        rest.len().checked_sub(HEAD - length.len())?.checked_sub(signature)
    });
    if let Some(length) = length {
        module.truncate(length);
    }
    module
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The bytes of a module, uncompressed.
pub(crate) fn read_module(path: &Path) -> Result<Vec<u8>, ModuleError> {
    let read = |source| ModuleError::Read { path: path.to_owned(), source };
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return whole(path, fs::read(path).map_err(read)?),
    };
    let file = fs::File::open(path).map_err(read)?;
    let module = decompress(tool, file.into(), MAX_MODULE)
        .map_err(|source| ModuleError::Decompress { path: path.to_owned(), tool, source })?;
    whole(path, module)
}

/// Checks that a module is complete: a guest could not load another one.
fn whole(path: &Path, module: Vec<u8>) -> Result<Vec<u8>, ModuleError> {
    let damaged = || ModuleError::Damaged(path.to_owned());
    has_all_sections(&module).filter(|ends| *ends).ok_or_else(damaged)?;
    Ok(without_signature(module))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::elf::module;

    const DEPENDENCIES: &str = "\
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_pci_modern_dev.ko:
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_pci_modern_dev.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko kernel/net/core/failover.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
not a line
";

    fn order(
        dependencies: &str,
        builtin: &str,
        needs: &[ModuleNeed],
    ) -> Result<Vec<String>, ModuleError> {
        let index = ModuleIndex::parse(Path::new("/m"), dependencies, builtin);
        let paths = index.in_load_order(&needs.iter().copied().collect())?;
        Ok(paths.iter().map(|path| name_of(path.to_str().unwrap())).collect())
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let order = order(DEPENDENCIES, "", &[ModuleNeed::Base]).unwrap();
        assert_eq!(
            order,
            [
                "virtio_pci_modern_dev",
                "virtio_ring",
                "virtio",
                "virtio_pci",
                "failover",
                "net_failover",
                "virtio_net"
            ]
        );
    }

    #[test]
    fn what_nothing_waits_for_comes_last() {
        let order = order(DEPENDENCIES, "", &[ModuleNeed::Later, ModuleNeed::Base]).unwrap();
        assert_eq!(order[order.len() - 2..], ["virtio_net", "virtio_rng"]);
    }

    #[test]
    fn a_signature_is_left_out_and_nothing_else() {
        let signed = |signature: &[u8], length: u32| {
            let length = length.to_be_bytes();
            let mark = b"~Module signature appended~\n";
            [b"a module", signature, &[0, 0, 2, 0, 0, 0, 0, 0], &length, mark].concat()
        };
        assert_eq!(without_signature(signed(&[7; 300], 300)), b"a module");
        assert_eq!(without_signature(b"a module".to_vec()), b"a module");
        let wrong = signed(&[7; 3], u32::MAX);
        assert_eq!(without_signature(wrong.clone()), wrong);
        let short = b"\0\0\0\0~Module signature appended~\n".to_vec();
        assert_eq!(without_signature(short.clone()), short);
    }

    #[test]
    fn builtin_modules_are_left_out() {
        let builtin = "kernel/drivers/virtio/virtio_ring.ko\nkernel/drivers/virtio/virtio.ko\nkernel/drivers/virtio/virtio_pci.ko\n";
        let order = order(DEPENDENCIES, builtin, &[ModuleNeed::Base]).unwrap();
        assert_eq!(order, ["failover", "net_failover", "virtio_net"]);
    }

    #[test]
    fn a_required_module_that_is_missing_is_named() {
        let error =
            order(DEPENDENCIES, "", &[ModuleNeed::Base, ModuleNeed::SharedDirectory]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel in /m has no module 9pnet_virtio and does not have it built in"
        );
    }

    #[test]
    fn a_dependency_that_is_missing_is_named() {
        let broken = "virtio_pci.ko: gone.ko\n";
        assert!(
            matches!(order(broken, "", &[ModuleNeed::Base]), Err(ModuleError::Missing { name, .. }) if name == "gone")
        );
    }

    #[test]
    fn a_circle_ends() {
        let circle = "virtio_pci.ko: virtio.ko\nvirtio.ko: virtio_pci.ko\n";
        assert!(matches!(order(circle, "", &[ModuleNeed::Base]), Err(ModuleError::Circle(_))));
    }

    #[test]
    fn compressed_modules_are_read_as_what_they_hold() {
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("x.ko");
        fs::write(&plain, module("a module")).unwrap();
        assert_eq!(read_module(&plain).unwrap(), module("a module"));
        assert!(Command::new("gzip").arg(&plain).status().unwrap().success());
        assert_eq!(read_module(&directory.path().join("x.ko.gz")).unwrap(), module("a module"));
    }

    #[test]
    fn a_module_that_was_emptied_or_cut_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.ko");
        let mut module = module("a module with a table of sections");
        module[40] = 70;
        (module[58], module[60]) = (10, 2);
        fs::write(&path, &module).unwrap();
        assert_eq!(read_module(&path).unwrap(), module);
        for length in [0, 5, 63, 89] {
            fs::write(&path, &module[..length]).unwrap();
            let damaged = read_module(&path);
            assert!(matches!(damaged, Err(ModuleError::Damaged(_))), "{length}: {damaged:?}");
        }
    }
}
