//! `metaservice image snapshot`: saves a machine whose agent waits for a job, to restore it later.

use anyhow::Result;
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use metaservice_image::ImageStore;
use metaservice_sandbox::job::Job;
use metaservice_sandbox::machine::snapshot::{self, Made};
use metaservice_sandbox::machine::{Image, Plan};
use metaservice_sandbox::spec::JobSpec;
use serde_json::json;

use crate::completions;
use crate::description;
use crate::flags::HardwareArgs;
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

const HELP: &str = "\
The machine boots, and is saved when its agent waits for a job. Later runs with the same --cpus,
--memory and --accel start from this snapshot. Each of them has its own random state, clock, name
and session. Machines of an image also get their own machine id and host keys of the ssh server.
The memory of all other programs is the same in all of them.

\"run\" creates a snapshot of the built-in guest by itself, in the background, after it had to boot.
--no-snapshot or METASERVICE_NO_SNAPSHOT=1 prevents this. Only this verb creates one of an image.

Snapshots are in $XDG_CACHE_HOME/metaservice/warm, for this user only. A snapshot needs as much disk
as the guest has used of its memory and written to its disk. Snapshots of another QEMU, kernel or
agent are removed. Of the others, the last four of each image are kept. \"image ls --snapshots\"
lists all, and \"image prune\" removes them.

All snapshots of the built-in guest take at most 4 GiB together, or METASERVICE_SNAPSHOT_LIMIT (a
size, such as 500M). A new one removes the least recently used ones that no machine runs from.

A run boots if it has more than four directories of the host (--rootfs is one, and each --volume),
or --kernel, --initrd, --kaslr, --ssh-key, --user-data or --console, or if its image is
not in \"image ls\".

Examples:
  metaservice image snapshot builtin --memory 2G
  metaservice image snapshot debian";

/// Create a snapshot, from which runs are restored instead of booting.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Snapshot {
    /// The name of an image, or "builtin" for the built-in guest.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(completions::snapshots))]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) hardware: HardwareArgs,
    /// Run with the lowest priority.
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}

/// The name of the built-in guest.
const BUILTIN: &str = "builtin";

pub(super) async fn snapshot(args: &Snapshot, printer: Printer) -> Result<ExitStatus> {
    if args.background {
        // If the system refuses a lower priority, the default one is used.
        let _ = rustix::process::nice(19);
    }
    let plan = plan(args)?;
    let mut interrupts = Interrupts::listen()?;
    let _spinner = printer.spinner(format!("booting and saving {}", args.name));
    let made = tokio::select! {
        // In the foreground, wait for other processes that create snapshots.
        made = snapshot::make(&plan, !args.background) => made.map_err(hints::snapshot)?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    match made {
        Made::Now => printer.note(&format!("there is a snapshot of {} now", args.name)),
        Made::Before => printer.note(&format!("there was a snapshot of {} already", args.name)),
        _ => {}
    }
    printer.event("saved", json!({ "name": args.name, "already": made == Made::Before }));
    Ok(ExitStatus::SUCCESS)
}

/// Plans the machine that later runs of the same image and hardware use.
fn plan(args: &Snapshot) -> Result<Plan> {
    let mut spec = JobSpec::new([BUILTIN]);
    spec.machine = description::hardware(&args.hardware)?;
    let job = Job::try_from(spec).map_err(hints::job)?;
    let planned = if args.name == BUILTIN {
        Plan::resolve(&job)
    } else {
        let store = ImageStore::of_user()?;
        let image = Image::stored(&store, &args.name);
        Plan::with_image(&job, image.map_err(|error| hints::store(error, &store))?)
    };
    planned.map_err(|error| hints::plan(error, "give --image DISK"))
}
