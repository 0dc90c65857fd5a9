//! The words after `image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;

use super::{CloudArgs, HardwareArgs, Net};
use crate::candidates;

const IMPORT_HELP: &str = "\
The file is copied, and is not needed any longer. It is raw or qcow2, which its bytes say; a qcow2
image that names other files of this host, is encrypted or broken is refused. Images are in
$XDG_DATA_HOME/metaservice/images (~/.local/share), under the SHA-256 of their bytes, for this user
alone; the digest is printed. The same content is kept once, under as many names as it is given.

Example:
  metaservice image import debian-12-generic-amd64.qcow2 --name debian
  metaservice run --image debian -- apt-get --version";

const LS_HELP: &str = "\
With -q only the names, with --json an array of all that is known.";

const RM_HELP: &str = "\
An image goes with the last of its names, or by its sha256:DIGEST with all of them, and with it go
the machines that were saved of it. Machines
that run from it do not notice. Prepared images do not need the image that they were made of.

Example:
  metaservice image rm debian";

const PREPARE_HELP: &str = "\
The image boots once, from a copy. Its cloud-init does all that it does, user data among it; the
agent installs itself; with --net user the package manager fetches its lists; your COMMAND, if there
is one, runs as root, and its log is shown. Then cloud-init is told not to run again, what is one
machine's alone is removed (the machine's id, and the keys of its ssh server where systemd can have
others made), and the machine powers itself off. The copy is booted once more: when its agent comes
by itself it becomes an image of its own, which boots straight to the agent.

If anything fails nothing is kept; where it is the command, its exit status is ours.

Examples:
  metaservice image prepare debian --as debian-git --net user -- apt-get install -y git
  metaservice run --image debian-git -- git --version";

const SNAPSHOT_HELP: &str = "\
A machine is booted, and saved at the moment at which its agent waits for a job: it holds nothing
of any. Each run of a machine with as many processors and as much memory goes on from there, with
random state, clock, name and session of its own. \"run\" makes one by itself, in the background,
when it had to boot the built-in guest (--no-warm or METASERVICE_NO_WARM=1: never); of an image only
this command does. The machines of an image have an id and ssh server's keys of their own as well;
whatever else its programs keep in their memory is the same in all of them.

Saved machines are in $XDG_CACHE_HOME/metaservice/warm, for this user alone; one takes about as much
of the disk as its guest has used of its memory, and written to its disk. Those of another QEMU,
kernel or agent are removed, and of the others all but the last four of each image. Machines with
--rootfs, --kernel, --initrd, --net user, --ssh-key, --user-data or --console boot, and so do those
of an image that is not in \"image ls\".

Examples:
  metaservice image snapshot builtin --memory 2G
  metaservice image snapshot debian";

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Keep a copy of a disk image under a name.
    #[command(after_help = IMPORT_HELP)]
    Import(ImportArgs),
    /// List the images that are kept.
    #[command(after_help = LS_HELP)]
    Ls,
    /// Remove names of images.
    #[command(after_help = RM_HELP)]
    Rm(RmArgs),
    /// Boot an image once, and keep what it has become: an image that is ready for a job.
    #[command(after_help = PREPARE_HELP)]
    Prepare(PrepareArgs),
    /// Save a machine that waits for a job, from which runs go on instead of booting.
    #[command(after_help = SNAPSHOT_HELP)]
    Snapshot(SnapshotArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The disk image.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Its name: letters, digits, dots, dashes and underscores. The file's own without its ending,
    /// if nothing is said.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Names, or sha256:DIGEST.
    #[arg(value_name = "NAME", required = true, add = ArgValueCompleter::new(candidates::images))]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    /// The image, by its name or sha256:DIGEST.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(candidates::images))]
    pub(crate) name: String,
    /// The name of what it becomes; NAME-prepared, if nothing is said.
    #[arg(long = "as", value_name = "NEW")]
    pub(crate) new: Option<String>,
    /// Set a variable of the command's environment; without =VALUE, hand on our own.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    #[command(flatten)]
    pub(crate) cloud: CloudArgs,
    #[command(flatten)]
    pub(crate) hardware: HardwareArgs,
    /// Whether the machine sees the outside world, on a second card. Only what was prepared with it
    /// can be run with it.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Net::None)]
    pub(crate) net: Net,
    /// How long the machine may take until its agent comes: 5m, if nothing is said.
    #[arg(long, value_name = "DURATION")]
    pub(crate) boot_timeout: Option<String>,
    /// How long all that may take, from when its agent has come.
    #[arg(long, value_name = "DURATION", default_value = "2h")]
    pub(crate) timeout: String,
    /// Write the machine's console to a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) console: Option<PathBuf>,
    /// What is to be done in it, as root.
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// What the machine boots from: "builtin", our own guest, or the name of an image.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(candidates::snapshots))]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) hardware: HardwareArgs,
    /// Give way to everything else.
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}
