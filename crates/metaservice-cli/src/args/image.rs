//! The verbs of `image` and their options.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;

use super::{CloudArgs, HardwareArgs, Net};
use crate::candidates;

const IMPORT_HELP: &str = "\
The file is copied. You can remove it afterwards. The format, raw or qcow2, is found by content. An
image that names other files of the host, is encrypted or is broken is refused.

Images are stored in $XDG_DATA_HOME/metaservice/images (~/.local/share/...), under the SHA-256 digest
of their content, for this user only. The digest is printed. The same content is stored once, with
any number of names.

Example:
  metaservice image import debian-12-generic-amd64.qcow2 --name debian
  metaservice run --image debian -- apt-get --version";

const LS_HELP: &str = "\
With -q, only the names are printed. With --json, the output is an array of all details.";

const RM_HELP: &str = "\
An image is removed with its last name. sha256:DIGEST removes an image with all of its names. The
snapshots of the image are removed too. Running machines are not affected. Prepared images do not
need the image from which they were made.

Example:
  metaservice image rm debian";

const PREPARE_HELP: &str = "\
Steps:
  1. The machine boots from a copy of the image. cloud-init does its work, with your user data, and
     the agent installs itself.
  2. With --net user, the package manager fetches its package lists.
  3. COMMAND runs as root. Its log is printed.
  4. cloud-init is disabled. What must be unique to each machine is removed: the machine id, and the
     host keys of the ssh server if systemd can create new ones.
  5. The machine powers off, and boots once more. When the agent comes, the copy becomes an image.

If a step fails, no image is kept. If COMMAND fails, its exit status is the exit status.

Examples:
  metaservice image prepare debian --as debian-git --net user -- apt-get install -y git
  metaservice run --image debian-git -- git --version";

const SNAPSHOT_HELP: &str = "\
The machine boots, and is saved when its agent waits for a job. Later runs with the same CPU, memory
and options start from this snapshot. Each of them has its own random state, clock, name and session.
Machines of an image also get their own machine id and host keys of the ssh server. The memory of all
other programs is the same in all of them.

\"run\" creates a snapshot of the built-in guest by itself, in the background, after it had to boot.
--no-snapshot or METASERVICE_NO_SNAPSHOT=1 prevents this. Only this verb creates one of an image.

Snapshots are in $XDG_CACHE_HOME/metaservice/warm, for this user only. A snapshot needs as much disk
as the guest has used of its memory and written to its disk. Snapshots of another QEMU, kernel or
agent are removed. Of the others, the last four of each image are kept.

A run boots if it has --rootfs, --kernel, --initrd, --net user, --ssh-key, --user-data or --console,
or if its image is not in \"image ls\".

Examples:
  metaservice image snapshot builtin --memory 2G
  metaservice image snapshot debian";

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Import a copy of a disk image under a name.
    #[command(after_help = IMPORT_HELP)]
    Import(ImportArgs),
    /// List the images.
    #[command(after_help = LS_HELP)]
    Ls,
    /// Remove images.
    #[command(after_help = RM_HELP)]
    Rm(RmArgs),
    /// Create an image that boots faster, with your packages.
    #[command(after_help = PREPARE_HELP)]
    Prepare(PrepareArgs),
    /// Create a snapshot, from which runs are restored instead of booting.
    #[command(after_help = SNAPSHOT_HELP)]
    Snapshot(SnapshotArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The disk image.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The name [default: the name of the file without its extension].
    ///
    /// A name has letters, digits, dots, dashes and underscores.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// A name, or sha256:DIGEST. Repeatable.
    #[arg(value_name = "NAME", required = true, add = ArgValueCompleter::new(candidates::images))]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    /// The name of the image, or sha256:DIGEST.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(candidates::images))]
    pub(crate) name: String,
    /// The name of the new image [default: NAME-prepared].
    #[arg(long = "as", value_name = "NEW")]
    pub(crate) new: Option<String>,
    /// Set a variable of the command. Without =VALUE, pass your own. Repeatable.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    #[command(flatten)]
    pub(crate) cloud: CloudArgs,
    #[command(flatten)]
    pub(crate) hardware: HardwareArgs,
    /// The network of the guest besides the service.
    ///
    /// Use "user" here if later runs use it.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Net::None)]
    pub(crate) net: Net,
    /// How long the machine may take until its agent comes [default: 5m].
    #[arg(long, value_name = "DURATION")]
    pub(crate) boot_timeout: Option<String>,
    /// How long the other steps may take together.
    #[arg(long, value_name = "DURATION", default_value = "2h")]
    pub(crate) timeout: String,
    /// Write the console of the machine to a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) console: Option<PathBuf>,
    /// A command that runs as root, with its arguments.
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// The name of an image, or "builtin" for the built-in guest.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(candidates::snapshots))]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) hardware: HardwareArgs,
    /// Run with the lowest priority.
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}
