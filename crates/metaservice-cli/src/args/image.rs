//! The words after `image`.

use clap::{Args, Subcommand};

use super::Accel;

const SNAPSHOT_HELP: &str = "\
A machine is booted, and saved at the moment at which its agent waits for a job: it holds nothing
of any. Each run of a machine with as many processors and as much memory goes on from there, with
random state, clock, name and session of its own. \"run\" makes one by itself, in the background,
when it had to boot the built-in guest (--no-warm or METASERVICE_NO_WARM=1: never).

Saved machines are in $XDG_CACHE_HOME/metaservice/warm, for this user alone; one takes about as much
of the disk as its guest has used of its memory. Those of another QEMU, kernel or agent are removed,
and of the others all but the last four. Machines with --image, --rootfs, --kernel, --initrd,
--net user or --console boot.

Example:
  metaservice image snapshot builtin --memory 2G";

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Save a machine that waits for a job, from which runs go on instead of booting.
    #[command(after_help = SNAPSHOT_HELP)]
    Snapshot(SnapshotArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// What the machine boots from: "builtin", our own guest.
    #[arg(value_name = "NAME", value_parser = ["builtin"])]
    pub(crate) name: String,
    /// How many processors the machine has.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) cpus: u32,
    /// How much memory the machine has: 512M, 2G.
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub(crate) memory: String,
    /// What runs the machine's processors.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Accel::Auto)]
    pub(crate) accel: Accel,
    /// Give way to everything else.
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}
