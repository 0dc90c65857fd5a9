//! The plan of a job's machine: its image and hardware, found without starting anything.

use std::path::PathBuf;
use std::time::Duration;

use metaservice::{Volume, VolumeMode};
use metaservice_qemu::{Accelerator, Arch, Share};
use serde::Serialize;

use super::image::{Image, ImageError};
use crate::job::{Hardware, Job, KernelChoice};

/// How long a guest may take to fetch its command if this crate's kernel and agent boot it.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an image may take that boots by its own boot loader: its services start before the
/// agent, which takes minutes under software emulation.
const IMAGE_BOOT_TIMEOUT: Duration = Duration::from_secs(300);

/// How many directories of the host a snapshot has devices for. Each costs some 3 ms at the start.
/// QEMU adds no 9p device to a machine that runs.
pub(crate) const SNAPSHOT_SHARES: usize = 4;

/// What a machine is made of: the description with its image found.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) hardware: Hardware,
    pub(crate) image: Option<Image>,
    /// Whether cloud-init is given keys or user data.
    cloud_data: bool,
}

/// Why a machine cannot be planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The image cannot be used.
    #[error("in machine.image")]
    Image(#[from] ImageError),
    /// Keys and user data are for an image that boots by itself.
    #[error("SSH keys and user data need an image that boots by itself")]
    CloudDataWithoutImage,
    /// The cloud-init of a prepared image does not run again.
    #[error("the cloud-init of a prepared image does not run again: it takes no keys or user data")]
    CloudDataForPrepared,
}

/// A summary of a plan, to print or to write as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlanSummary {
    /// The image, the root directory, or `builtin`.
    pub image: String,
    /// The digest of the image, if the store has it.
    pub digest: Option<String>,
    /// The kernel that the job names: a file, or `builtin`. `None` if it names none.
    pub kernel: Option<PathBuf>,
    /// The number of processors.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// `auto`, `kvm` or `tcg`.
    pub accelerator: &'static str,
    /// `none`, `open` or `policy`.
    pub network: &'static str,
    /// Whether a snapshot may be used and made.
    pub snapshot: bool,
    /// How long the guest may take to fetch its command, in milliseconds.
    pub boot_timeout_ms: u64,
}

impl Plan {
    /// Plans the machine of a job: finds its image. Blocks.
    ///
    /// # Errors
    /// When the image cannot be used, or does not go together with the rest.
    pub fn resolve(job: &Job) -> Result<Self, PlanError> {
        let image = job.hardware.image.as_deref().map(Image::find).transpose()?;
        Self::of(job, image)
    }

    /// Plans the machine of a job whose image was found before.
    ///
    /// # Errors
    /// When the image does not go together with the rest.
    pub fn with_image(job: &Job, image: Image) -> Result<Self, PlanError> {
        Self::of(job, Some(image))
    }

    fn of(job: &Job, image: Option<Image>) -> Result<Self, PlanError> {
        let cloud_data = !job.cloud.is_empty();
        let plan = Self { hardware: job.hardware.clone(), image, cloud_data };
        match &plan.image {
            Some(image) if plan.boots_itself() && cloud_data && image.prepared().is_some() => {
                Err(PlanError::CloudDataForPrepared)
            }
            Some(_) if plan.boots_itself() => Ok(plan),
            _ if cloud_data => Err(PlanError::CloudDataWithoutImage),
            _ => Ok(plan),
        }
    }

    /// Whether the image's own boot loader boots the machine.
    #[must_use]
    pub fn boots_itself(&self) -> bool {
        self.image.is_some() && self.hardware.kernel.is_none()
    }

    /// Whether the machine may be killed at any time: none of its disks outlives it, and it has no
    /// network. A machine with an initial RAM disk of the user's may need an orderly end.
    #[must_use]
    pub fn is_disposable(&self) -> bool {
        let alone = !self.boots_itself() || self.hardware.network.is_none();
        alone && self.hardware.initrd.is_none()
    }

    /// The directories of the host that the machine gets, in the order of their devices.
    pub(crate) fn shares(&self) -> impl Iterator<Item = Share> {
        let root = self.hardware.rootfs.iter().map(|directory| Share::new(directory).root());
        let volumes = self.hardware.volumes.iter().map(|volume| {
            let share = Share::new(&volume.host);
            if volume.mode == VolumeMode::ReadWrite { share.writable() } else { share }
        });
        root.chain(volumes)
    }

    /// Where the guest mounts these directories, in the same order.
    pub(crate) fn volumes(&self) -> Vec<Volume> {
        let root = self.hardware.rootfs.iter().map(|_| ("/", VolumeMode::Overlay));
        let volumes = self.hardware.volumes.iter();
        let volumes = volumes.map(|volume| (volume.guest.as_str(), volume.mode));
        let all = root.chain(volumes).enumerate();
        let volume = |(number, (path, mode)): (usize, (&str, VolumeMode))| Volume {
            tag: Share::tag(number),
            path: path.to_owned(),
            mode,
        };
        all.map(volume).collect()
    }

    /// Whether such a machine may start from a snapshot.
    #[must_use]
    pub fn may_restore(&self) -> bool {
        let Hardware { kernel, initrd, console, snapshot, kaslr, .. } = &self.hardware;
        let plain = kernel.is_none() && initrd.is_none() && console.is_none();
        let stored = self.image.as_ref().is_none_or(|image| image.stored.is_some());
        let same = *snapshot && !kaslr && !self.cloud_data;
        let shares = self.shares().count() <= SNAPSHOT_SHARES;
        plain && stored && same && shares && Arch::HOST.supports_snapshots()
    }

    /// Whether a snapshot of this machine is made by itself after a job, for the next one. An
    /// image's snapshot is made on request.
    #[must_use]
    pub fn wants_snapshot(&self) -> bool {
        self.may_restore() && self.image.is_none()
    }

    /// How long the guest may take to fetch its command.
    #[must_use]
    pub fn boot_timeout(&self) -> Duration {
        let usual = if self.boots_itself() { IMAGE_BOOT_TIMEOUT } else { BOOT_TIMEOUT };
        self.hardware.boot_timeout.unwrap_or(usual)
    }

    /// The summary of the plan.
    #[must_use]
    pub fn summary(&self) -> PlanSummary {
        let hardware = &self.hardware;
        let stored = self.image.as_ref().and_then(|image| image.stored.as_ref());
        let digest = stored.map(|image| image.digest.to_string());
        let word = hardware.image.as_ref().or(hardware.rootfs.as_ref());
        let image = match (word, &digest) {
            (Some(word), _) => word.display().to_string(),
            // An image that was found before has no name in the description.
            (None, Some(digest)) => digest.clone(),
            (None, None) => "builtin".to_owned(),
        };
        PlanSummary {
            image,
            digest,
            kernel: hardware.kernel.as_ref().map(|kernel| match kernel {
                KernelChoice::Builtin => PathBuf::from("builtin"),
                KernelChoice::File(file) => file.clone(),
            }),
            cpus: hardware.cpus.count(),
            memory: hardware.memory.mebibytes() << 20,
            accelerator: match hardware.accelerator {
                Accelerator::Kvm => "kvm",
                Accelerator::Tcg => "tcg",
                _ => "auto",
            },
            network: hardware.network.mode(),
            snapshot: self.may_restore(),
            boot_timeout_ms: u64::try_from(self.boot_timeout().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{HardwareSpec, JobSpec, NetworkMode};

    fn plan(change: impl FnOnce(&mut HardwareSpec)) -> Plan {
        let mut spec = JobSpec::new(["true"]);
        change(&mut spec.machine);
        Plan::resolve(&Job::try_from(spec).unwrap()).unwrap()
    }

    #[test]
    fn the_builtin_guest_starts_from_a_snapshot() {
        let plan = plan(|_| {});
        assert!(plan.may_restore() && plan.wants_snapshot() && plan.is_disposable());
        assert_eq!(plan.boot_timeout(), BOOT_TIMEOUT);
        let summary = plan.summary();
        assert_eq!((summary.image.as_str(), summary.cpus, summary.memory), ("builtin", 1, 1 << 30));
    }

    #[test]
    fn a_machine_that_is_not_the_same_as_others_is_booted() {
        assert!(!plan(|spec| spec.snapshot = false).may_restore());
        assert!(!plan(|spec| spec.kaslr = true).may_restore());
        let five = |spec: &mut HardwareSpec| {
            spec.volumes = ["/a", "/b", "/c", "/d", "/e"]
                .map(|place| format!(".:{place}").parse().unwrap())
                .into();
        };
        assert!(!plan(five).may_restore());
        assert!(!plan(|spec| spec.console = Some("c".into())).may_restore());
    }

    #[test]
    fn directories_of_the_host_have_devices_in_the_order_of_their_mounts() {
        let plan = plan(|spec| {
            spec.rootfs = Some("/".into());
            spec.volumes = [".:/src/out:rw", "/usr:/src"].map(|v| v.parse().unwrap()).into();
        });
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        let shares: Vec<_> = plan.shares().collect();
        let expected = [Share::new("/").root(), Share::new("/usr"), Share::new(here).writable()];
        assert_eq!(shares, expected);
        let volumes = plan.volumes();
        let volumes: Vec<_> =
            volumes.iter().map(|v| (v.tag.as_str(), v.path.as_str(), v.mode.name())).collect();
        let expected = [
            ("metaservice0", "/", "overlay"),
            ("metaservice1", "/src", "ro"),
            ("metaservice2", "/src/out", "rw"),
        ];
        assert_eq!(volumes, expected);
        assert!(plan.may_restore() && plan.wants_snapshot());
    }

    #[test]
    fn a_machine_with_a_network_starts_from_the_same_snapshot() {
        let open = plan(|spec| spec.network.mode = Some(NetworkMode::Open));
        let rules = plan(|spec| spec.network.allow = vec!["a.example".to_owned()]);
        assert_eq!([&open, &rules].map(|plan| plan.summary().network), ["open", "policy"]);
        assert!([&open, &rules].iter().all(|plan| plan.may_restore() && plan.wants_snapshot()));
    }

    #[test]
    fn keys_need_an_image_that_boots_by_itself() {
        let mut spec = JobSpec::new(["true"]);
        spec.cloud.ssh_keys = vec!["ssh-ed25519 AAAA me".to_owned()];
        let refused = Plan::resolve(&Job::try_from(spec).unwrap());
        assert!(matches!(refused, Err(PlanError::CloudDataWithoutImage)));
    }
}
