//! The flags of a machine, which several verbs share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use super::network::NetworkArgs;
use super::numbers;
use crate::completions;

/// The heading of a machine's options in the help. They are defined in several places.
const MACHINE: &str = "Machine options";

#[derive(Debug, Args)]
#[command(next_help_heading = MACHINE)]
pub(crate) struct VmArgs {
    /// Boot a disk image: a file, or an image of "image ls".
    ///
    /// Give the name or the sha256:DIGEST of an image, or a path. If a file has the name of an
    /// image, write it as ./NAME. The image is a stock cloud image, whose cloud-init fetches the
    /// agent, or contains the agent. It is never written: changes go to a temporary overlay.
    #[arg(long, value_name = "NAME|DISK", add = ArgValueCompleter::new(completions::disks))]
    pub(crate) image: Option<PathBuf>,
    /// Use a directory of the host as the root of the guest, read-only.
    ///
    /// What the guest writes goes to a temporary overlay in its memory. The command starts in /.
    /// The guest has its own /tmp, which hides the one of the host.
    ///
    /// Under --rootfs /, a guest reads every file that you can read, and with --net open it can
    /// send them anywhere. If the host has user namespaces or Landlock, or you are root, these
    /// paths are hidden: /proc, /sys, /dev, /run and /tmp of the host; other file systems in the
    /// directory; shadow files and host keys; the state of metaservice; and the usual places of
    /// credentials, such as ~/.ssh. docs/threat-model.md has the whole list, and "metaservice
    /// doctor" says what the host has. Changes on the host are visible in the guest.
    #[arg(long, value_name = "DIR", conflicts_with = "image")]
    pub(crate) rootfs: Option<PathBuf>,
    /// Mount a directory of the host in the guest. Repeatable.
    ///
    /// HOST must exist. A relative path begins at your working directory. GUEST is an absolute
    /// path, which is created if it is missing. Write a colon in a path as "\:". The modes:
    ///
    /// ro: the guest only reads (default). rw: the guest writes to the directory, and its files
    /// belong to you. overlay: what the guest writes stays in its memory.
    ///
    /// Changes on the host are visible in the guest. As with --rootfs, the usual places of
    /// credentials and other file systems below HOST look empty. An image needs the kernel modules
    /// 9p and 9pnet_virtio, and "overlay" for that mode. For a single file, use --copy-in.
    #[arg(short, long, value_name = "HOST:GUEST[:MODE]")]
    pub(crate) volume: Vec<String>,
    /// Show the guest a hidden path of the host below --rootfs or a volume. Repeatable.
    ///
    /// This also shows another file system, for example /home. Everything in the path is shown,
    /// except file systems below it. The guest reads a shown file only if you can read it: su in
    /// the guest needs --show /etc/shadow and a user who can read this file. The guest has its own
    /// /proc, /sys, /dev, /run and /tmp: those of the host cannot be shown.
    #[arg(long, value_name = "PATH")]
    pub(crate) show: Vec<PathBuf>,
    /// Hide one more path of the host below --rootfs or a volume. Repeatable.
    ///
    /// The path looks empty to the guest.
    #[arg(long, value_name = "PATH")]
    pub(crate) hide: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) hardware: HardwareArgs,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// How long the machine may take to boot [default: 60s, images: 5m].
    ///
    /// The time ends when the guest fetches its command.
    #[arg(long, value_name = "DURATION")]
    pub(crate) boot_timeout: Option<String>,
    /// Always boot; neither use nor create a snapshot.
    ///
    /// See "metaservice image snapshot --help".
    #[arg(long, alias = "no-warm", env = "METASERVICE_NO_SNAPSHOT", hide_env_values = true)]
    #[arg(value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) no_snapshot: bool,
    /// The variable of --no-snapshot before it was renamed.
    #[arg(long, hide = true, id = "old_no_snapshot", env = "METASERVICE_NO_WARM")]
    #[arg(value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) old_no_snapshot: bool,
    /// Write all network frames between guest and service to a capture file.
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
    /// Write the console of the machine to a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) console: Option<PathBuf>,
    /// Boot this kernel. With --image, "builtin" is the built-in kernel.
    ///
    /// A kernel with --image runs the command on the root file system of the image.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Boot with this initial RAM disk instead of the built-in one.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,
    /// Boot the built-in kernel at random addresses, without a snapshot.
    ///
    /// Otherwise the kernel has fixed addresses. The boot takes twice as long under emulation,
    /// because the kernel extracts itself. For an image that boots by itself, its boot loader
    /// decides.
    #[arg(long)]
    pub(crate) kaslr: bool,
}

impl VmArgs {
    /// Returns whether the machine may be restored from a snapshot, or saved as one.
    pub(crate) const fn snapshots(&self) -> bool {
        !self.no_snapshot && !self.old_no_snapshot && !self.kaslr
    }
}

/// The hardware of a machine.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = MACHINE)]
pub(crate) struct HardwareArgs {
    /// The number of processors.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = numbers::processors)]
    pub(crate) cpus: u32,
    /// The size of the memory of the guest: 512M, 1.5G; at least 96M.
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub(crate) memory: String,
    /// How the processors of the machine are executed.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Accel::Auto)]
    pub(crate) accel: Accel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// KVM if it works, else software emulation.
    Auto,
    /// The virtualization of the host's processor.
    Kvm,
    /// Software emulation.
    Tcg,
}
