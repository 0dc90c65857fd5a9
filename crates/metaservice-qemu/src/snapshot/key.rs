//! The key of a snapshot: everything that must be the same for a machine to be restored from it.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::error::SnapshotError;
use crate::cache::key::{Key, identify};
use crate::command_line::{self, Inherited};
use crate::spec::MachineSpec;
use crate::spec::boot::Boot;
use crate::spec::disk::Disk;
use crate::spec::error::InvalidSpec;

/// Changes with the layout of a snapshot, and with everything that a saved guest and its host must
/// agree on.
const LAYOUT: &[u8] = b"3";

/// Which machine a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotKey {
    pub(super) name: String,
    /// Depends on QEMU and the host's processor alone.
    pub(super) host: String,
    /// What the machine boots from, whatever its content: the kernel of the host, or a disk.
    pub(super) family: String,
    /// Depends on the content of everything that the machine boots from.
    pub(super) base: String,
    pub(super) disk: Option<Disk>,
    /// The size of the memory in bytes.
    pub(super) memory: u64,
    pub(super) cpus: u32,
}

impl SnapshotKey {
    /// The key of a machine. The address of its card counts, the socket of the card does not.
    ///
    /// # Errors
    /// If the description is invalid, or a file cannot be read.
    pub fn of(spec: &MachineSpec) -> Result<Self, SnapshotError> {
        let accelerator = spec.accelerator.choose(spec.qemu.arch).map_err(InvalidSpec::from)?;
        let card = spec.card.as_ref().map(|_| 0);
        let words =
            command_line::qemu(spec, &accelerator, Inherited { card, ..Inherited::default() })?;
        let mut host = Key::default();
        host.bytes(LAYOUT).file(&fs::canonicalize(&spec.qemu.path)?)?;
        // The program may be a script that runs another one, so its version counts too.
        host.bytes(spec.qemu.version.to_string().as_bytes()).bytes(&processor());
        let host = host.name("host");
        let (mut base, mut family) = (Key::default(), Key::default());
        base.bytes(host.as_bytes());
        if let Boot::Direct { kernel, initramfs, .. } = &spec.boot {
            for file in [Some(kernel), initramfs.as_ref()].into_iter().flatten() {
                identify(&mut base, file.path())?;
            }
        }
        if let Some(disk) = &spec.disk {
            family.bytes(disk.path().as_os_str().as_bytes());
            base.file(disk.path())?;
        }
        let base = base.name("base");
        let mut key = Key::default();
        key.bytes(base.as_bytes());
        for word in words {
            key.bytes(word.as_bytes());
        }
        Ok(Self {
            name: key.name("machine"),
            host,
            family: family.name("family"),
            base,
            disk: spec.disk.clone(),
            memory: spec.memory.mebibytes() << 20,
            cpus: spec.cpus.count(),
        })
    }

    /// Makes the key also depend on these bytes: what the guest gets from outside while it boots.
    #[must_use]
    pub fn depending_on(mut self, bytes: &[u8]) -> Self {
        for part in [&mut self.base, &mut self.name] {
            let mut key = Key::default();
            key.bytes(part.as_bytes()).bytes(bytes);
            *part = key.name("besides");
        }
        self
    }
}

/// The model and the features of the host's processor. A machine under KVM has these features.
fn processor() -> Vec<u8> {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let lines = text.lines().take_while(|line| !line.is_empty());
    let kept = lines.filter(|line| line.starts_with("model name") || line.starts_with("flags"));
    kept.collect::<String>().into_bytes()
}
