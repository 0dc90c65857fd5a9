//! Turns a plan into the description that QEMU's driver takes. Looks for tools, and builds the
//! initramfs that the machine boots.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use metaservice::Cloud;
use metaservice_image::{DiskError, Format};
use metaservice_qemu::initramfs::{self, InitramfsError};
use metaservice_qemu::{
    Boot, BootFile, CacheNotice, Card, Disk, DiskFormat, Finding, MacAddress, MachineSpec,
    MissingTools, ModuleNeed, Report, Root, SystemUuid, Tools, Visibility,
};

use super::Plan;
use super::address;
use super::plan::SNAPSHOT_SHARES;
use crate::agent::AGENT;
use crate::job::{Job, KernelChoice};

/// Why a planned machine cannot be described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescribeError {
    /// QEMU, a kernel or another program is missing.
    #[error(transparent)]
    Tools(#[from] MissingTools),
    /// The image's file cannot be read.
    #[error(transparent)]
    Image(#[from] DiskError),
    /// The initramfs cannot be built.
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
}

/// What tells the machine of a job from all others.
#[derive(Debug, Clone)]
pub(crate) struct Individual {
    hostname: String,
    address: MacAddress,
    /// What cloud-init is served, if the machine boots a stock image.
    pub(crate) cloud: Option<Cloud>,
    console_limit: u64,
}

impl Individual {
    pub(crate) fn of(job: &Job, plan: &Plan) -> Self {
        let address = address::of(plan);
        let instance = || address::add_to(job.cloud.instance(job.hostname()), address);
        Self {
            hostname: job.hostname().to_owned(),
            address,
            cloud: plan.boots_itself().then(instance),
            console_limit: job.limits.console,
        }
    }
}

/// Describes machines of one plan. What they boot from is looked for and built once: it is not the
/// same for a machine of one job and for one that can have a snapshot.
#[derive(Debug)]
pub(crate) struct Describer {
    plan: Arc<Plan>,
    boots: Mutex<Boots>,
}

#[derive(Debug, Default)]
struct Boots {
    of_job: Option<Boot>,
    of_snapshot: Option<Boot>,
}

impl Describer {
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        Self { plan, boots: Mutex::default() }
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Describes the machine; `card` is its end of the network card. Without an individual it is
    /// a machine that can have a snapshot: it is the same for all jobs, and has devices for
    /// directories of the host, but no directories. Blocks.
    pub(crate) fn describe(
        &self,
        individual: Option<&Individual>,
        card: UnixStream,
    ) -> Result<MachineSpec, DescribeError> {
        let hardware = &self.plan.hardware;
        let report = metaservice_qemu::find();
        let required;
        let qemu = match &report.qemu {
            Finding::Found(qemu) => qemu,
            // Says everything that is missing, if more is than QEMU.
            Finding::Missing { .. } => {
                required = report.require()?;
                &required.qemu
            }
        };
        let address = individual.map_or_else(address::fixed, |own| own.address);
        let spec = MachineSpec::new(qemu, self.boot(&report, individual.is_none())?)
            .cpus(hardware.cpus)
            .memory(hardware.memory)
            .accelerator(hardware.accelerator)
            .card(Card::new(card.into(), address));
        // An image that boots by itself asks by DHCP for the same.
        let network = metaservice_nic::Network::default();
        let spec = spec.guest_address(network.guest, network.prefix).guest_gateway(network.router);
        let spec = match individual {
            Some(individual) => self.share(identify(spec, individual)),
            None => spec.share_devices(SNAPSHOT_SHARES),
        };
        self.with_root(spec)
    }

    /// Adds the directories of the host, also to a machine that is restored.
    pub(crate) fn share(&self, spec: MachineSpec) -> MachineSpec {
        let hardware = &self.plan.hardware;
        let visibility = hardware.show.iter().fold(Visibility::new(), Visibility::show);
        let visibility = hardware.hide.iter().fold(visibility, Visibility::hide);
        self.plan.shares().fold(spec, MachineSpec::share).visibility(visibility)
    }

    fn with_root(&self, mut spec: MachineSpec) -> Result<MachineSpec, DescribeError> {
        let hardware = &self.plan.hardware;
        if let Some(image) = &self.plan.image {
            spec = spec.disk(disk(&image.disk)?);
            if hardware.kernel.is_some() {
                spec = spec.root(Root::Disk);
            }
        }
        Ok(spec)
    }

    /// What the machine boots from.
    fn boot(&self, report: &Report, of_snapshot: bool) -> Result<Boot, DescribeError> {
        let mut boots = metaservice_private::lock(&self.boots);
        let Boots { of_job, of_snapshot: other } = &mut *boots;
        let kept = if of_snapshot { other } else { of_job };
        if let Some(boot) = &*kept {
            return Ok(boot.clone());
        }
        let boot = self.build_boot(report, of_snapshot || self.plan.shares().next().is_some())?;
        Ok(kept.insert(boot).clone())
    }

    /// What there is to say of the files that the machine boots from. The cause why one file could
    /// not be kept is the cause for all: it is said once.
    pub(crate) fn notices(&self) -> Vec<CacheNotice> {
        let unwritable = |notice: &&CacheNotice| matches!(notice, CacheNotice::Unwritable { .. });
        let boots = metaservice_private::lock(&self.boots);
        let all = || [&boots.of_snapshot, &boots.of_job].into_iter().flatten();
        let mut said: Vec<CacheNotice> = Vec::new();
        let damaged = all().flat_map(Boot::notices).filter(|notice| !unwritable(notice));
        for notice in damaged.chain(all().flat_map(Boot::notices).find(unwritable)) {
            if !said.contains(notice) {
                said.push(notice.clone());
            }
        }
        said
    }

    /// Removes temporary files that machines of this plan boot from.
    pub(crate) fn forget(&self) {
        *metaservice_private::lock(&self.boots) = Boots::default();
    }

    fn build_boot(&self, report: &Report, shares: bool) -> Result<Boot, DescribeError> {
        let hardware = &self.plan.hardware;
        if self.plan.boots_itself() {
            return Ok(Boot::Firmware);
        }
        if let (Some(KernelChoice::File(kernel)), Some(initrd)) =
            (&hardware.kernel, &hardware.initrd)
        {
            let boot = Boot::Direct {
                kernel: kernel.clone().into(),
                initramfs: None,
                arguments: Vec::new(),
            };
            return Ok(boot.initramfs(initrd));
        }
        let tools = report.require()?;
        let kernel = if hardware.kaslr { Boot::from_compressed } else { Boot::from_kernel };
        Ok(kernel(&tools.kernel).initramfs(match &hardware.initrd {
            Some(initrd) => initrd.clone().into(),
            None => self.build_initramfs(&tools, shares)?,
        }))
    }

    fn build_initramfs(&self, tools: &Tools, shares: bool) -> Result<BootFile, InitramfsError> {
        let mut contents = initramfs::Contents::new(AGENT.to_vec(), tools);
        if shares {
            contents = contents.need(ModuleNeed::SharedDirectory);
        }
        if self.plan.image.is_some() {
            contents = contents.need(ModuleNeed::Disk);
        }
        initramfs::build(&contents)
    }
}

/// The disk that a machine gets of an image.
pub fn disk(image: &metaservice_image::Disk) -> Result<Disk, DiskError> {
    let format = match image.format() {
        Format::Raw => DiskFormat::Raw,
        Format::Qcow2 => DiskFormat::Qcow2,
        Format::Vmdk => DiskFormat::Vmdk,
        Format::Vhdx => DiskFormat::Vhdx,
    };
    let disk = Disk::new(image.path(), format).refers_to_files(image.refers_to_files());
    Ok(match image.size()? {
        Some(size) => disk.size(size),
        None => disk,
    })
}

fn identify(spec: MachineSpec, individual: &Individual) -> MachineSpec {
    let spec = spec.hostname(&individual.hostname).console_limit(individual.console_limit);
    match &individual.cloud {
        Some(cloud) => spec.uuid(SystemUuid::from(cloud.system_uuid())),
        None => spec,
    }
}
