//! The hardware of a job's machine, checked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use metaservice_qemu::{Accelerator, Cpus, InvalidHardware, Memory};

use super::network::{InvalidNetwork, Network};
use super::volume::{InvalidVolume, MAX_VOLUMES, Volume, directory};
use crate::spec::{AccelSpec, HardwareSpec, Period, VolumeSpec};

/// The word that stands for the built-in kernel where a file could.
const BUILTIN: &str = "builtin";

/// The machine as the job describes it. What it boots from has not been looked for.
#[derive(Debug, Clone)]
pub struct Hardware {
    pub(crate) image: Option<PathBuf>,
    pub(crate) rootfs: Option<PathBuf>,
    pub(crate) show: Vec<PathBuf>,
    pub(crate) hide: Vec<PathBuf>,
    /// In the order in which the guest mounts them.
    pub(crate) volumes: Vec<Volume>,
    pub(crate) kernel: Option<KernelChoice>,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) cpus: Cpus,
    pub(crate) memory: Memory,
    pub(crate) accelerator: Accelerator,
    pub(crate) network: Network,
    pub(crate) boot_timeout: Option<Duration>,
    pub(crate) snapshot: bool,
    pub(crate) kaslr: bool,
    pub(crate) pcap: Option<PathBuf>,
    pub(crate) console: Option<PathBuf>,
}

/// A kernel that is booted in place of what the machine would boot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelChoice {
    /// The built-in one, on the root of the image.
    Builtin,
    /// A file.
    File(PathBuf),
}

/// Why a machine's description is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMachine {
    /// No machine has this number of processors.
    #[error("in machine.cpus")]
    Cpus(#[source] InvalidHardware),
    /// No machine has this much memory.
    #[error("in machine.memory")]
    Memory(#[source] InvalidHardware),
    /// The network is wrong.
    #[error(transparent)]
    Network(#[from] InvalidNetwork),
    /// A kernel that is no built-in one comes with its own initial RAM disk.
    #[error("the kernel {} needs the initial RAM disk that belongs to it", .0.display())]
    KernelWithoutInitrd(PathBuf),
    /// An initial RAM disk is loaded by a kernel.
    #[error("an initial RAM disk needs a kernel")]
    InitrdWithoutKernel,
    /// A machine has one root.
    #[error("a machine has an image or a root directory, not both")]
    TwoRoots,
    /// The root directory cannot be used.
    #[error("in machine.rootfs")]
    Rootfs(#[source] InvalidVolume),
    /// Paths are shown and hidden below shared directories.
    #[error("paths are shown and hidden below a root directory or a volume only")]
    NothingToShow,
    /// It is not a volume.
    #[error("in machine.volumes ({volume})")]
    Volume {
        /// The volume: its two paths.
        volume: String,
        /// What is wrong with it.
        #[source]
        cause: InvalidVolume,
    },
    /// Two volumes would be at one place.
    #[error("two volumes would be at {0} in the guest")]
    SamePlace(String),
    /// A machine has a device for each volume.
    #[error("a job has at most {MAX_VOLUMES} volumes")]
    TooManyVolumes,
}

impl Hardware {
    /// The network of the guest.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    pub(super) fn resolve(spec: HardwareSpec) -> Result<Self, InvalidMachine> {
        check(&spec)?;
        Ok(Self {
            cpus: Cpus::new(spec.cpus).map_err(InvalidMachine::Cpus)?,
            memory: Memory::from_mebibytes(spec.memory.0 >> 20).map_err(InvalidMachine::Memory)?,
            accelerator: match spec.accel {
                AccelSpec::Auto => Accelerator::Auto,
                AccelSpec::Kvm => Accelerator::Kvm,
                AccelSpec::Tcg => Accelerator::Tcg,
            },
            network: Network::resolve(&spec.network)?,
            kernel: spec.kernel.map(|kernel| match kernel == Path::new(BUILTIN) {
                true => KernelChoice::Builtin,
                false => KernelChoice::File(kernel),
            }),
            image: spec.image,
            rootfs: spec.rootfs.map(rootfs).transpose()?,
            show: spec.show,
            hide: spec.hide,
            volumes: volumes(&spec.volumes)?,
            initrd: spec.initrd,
            boot_timeout: spec.boot_timeout.map(Period::get),
            snapshot: spec.snapshot,
            kaslr: spec.kaslr,
            pcap: spec.pcap,
            console: spec.console,
        })
    }
}

/// Refuses what does not go together.
fn check(spec: &HardwareSpec) -> Result<(), InvalidMachine> {
    if spec.image.is_some() && spec.rootfs.is_some() {
        return Err(InvalidMachine::TwoRoots);
    }
    let shares = spec.rootfs.is_some() || !spec.volumes.is_empty();
    if !shares && (!spec.show.is_empty() || !spec.hide.is_empty()) {
        return Err(InvalidMachine::NothingToShow);
    }
    match (&spec.kernel, &spec.initrd) {
        (None, Some(_)) => Err(InvalidMachine::InitrdWithoutKernel),
        (Some(kernel), None) if kernel != Path::new(BUILTIN) => {
            Err(InvalidMachine::KernelWithoutInitrd(kernel.clone()))
        }
        _ => Ok(()),
    }
}

/// Checks a root directory, and keeps the path as it was written. Blocks.
fn rootfs(path: PathBuf) -> Result<PathBuf, InvalidMachine> {
    directory(&path).map_err(InvalidMachine::Rootfs)?;
    Ok(path)
}

/// The volumes, each after those above it.
fn volumes(specs: &[VolumeSpec]) -> Result<Vec<Volume>, InvalidMachine> {
    if specs.len() > MAX_VOLUMES {
        return Err(InvalidMachine::TooManyVolumes);
    }
    let mut places = BTreeSet::new();
    let mut volumes = Vec::new();
    for spec in specs {
        let volume = Volume::resolve(spec).map_err(|cause| {
            let volume = format!("{}:{}", spec.host.display(), spec.guest);
            InvalidMachine::Volume { volume, cause }
        })?;
        if !places.insert(volume.guest.clone()) {
            return Err(InvalidMachine::SamePlace(volume.guest));
        }
        volumes.push(volume);
    }
    volumes.sort_by_key(Volume::depth);
    Ok(volumes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_mounted_after_those_above_them() {
        let spec = HardwareSpec {
            volumes: [".:/a/b/c", ".:/z", ".:/a/b:rw", ".:/a"].map(|v| v.parse().unwrap()).into(),
            hide: vec!["/x".into()],
            ..HardwareSpec::default()
        };
        let hardware = Hardware::resolve(spec).unwrap();
        let places: Vec<_> = hardware.volumes.iter().map(|volume| volume.guest.as_str()).collect();
        assert_eq!(places, ["/z", "/a", "/a/b", "/a/b/c"]);
    }

    #[test]
    fn parts_that_do_not_go_together_are_refused() {
        let refused = |change: fn(&mut HardwareSpec)| {
            let mut spec = HardwareSpec::default();
            change(&mut spec);
            Hardware::resolve(spec).unwrap_err()
        };
        let network = refused(|spec| spec.network.publish = vec!["1:".to_owned()]);
        assert!(matches!(network, InvalidMachine::Network(InvalidNetwork::Publish(_))));
        let roots =
            refused(|spec| (spec.image, spec.rootfs) = (Some("a".into()), Some("b".into())));
        assert!(matches!(roots, InvalidMachine::TwoRoots));
        let hidden = refused(|spec| spec.hide = vec!["/x".into()]);
        assert!(matches!(hidden, InvalidMachine::NothingToShow));
        let same = refused(|spec| {
            spec.volumes = vec![".:/a/b".parse().unwrap(), "/:/a/./b/:rw".parse().unwrap()];
        });
        assert!(matches!(same, InvalidMachine::SamePlace(place) if place == "/a/b"));
        let many = refused(|spec| spec.volumes = vec![".:/a".parse().unwrap(); 17]);
        assert!(matches!(many, InvalidMachine::TooManyVolumes));
        let wrong = refused(|spec| spec.volumes = vec![".:/".parse().unwrap()]);
        assert_eq!(wrong.to_string(), "in machine.volumes (.:/)");
        let initrd = refused(|spec| spec.initrd = Some("a".into()));
        assert!(matches!(initrd, InvalidMachine::InitrdWithoutKernel));
        let kernel = refused(|spec| spec.kernel = Some("a".into()));
        assert!(matches!(kernel, InvalidMachine::KernelWithoutInitrd(_)));
        let cpus = refused(|spec| spec.cpus = 0);
        assert!(matches!(cpus, InvalidMachine::Cpus(_)));
    }
}
