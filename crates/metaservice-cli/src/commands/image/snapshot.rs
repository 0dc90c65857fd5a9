//! `metaservice image snapshot`: saves a machine whose agent waits for a job, to restore it later.

use anyhow::Result;
use metaservice_image::ImageStore;
use metaservice_sandbox::job::Job;
use metaservice_sandbox::machine::snapshot::{self, Made};
use metaservice_sandbox::machine::{Image, Plan};
use metaservice_sandbox::spec::JobSpec;
use serde_json::json;

use crate::args::SnapshotArgs;
use crate::description;
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

/// The built-in guest.
const BUILTIN: &str = "builtin";

pub(super) async fn snapshot(args: &SnapshotArgs, printer: Printer) -> Result<ExitStatus> {
    if args.background {
        // It runs with the lowest priority if the system allows it.
        let _ = rustix::process::nice(19);
    }
    let plan = plan(args)?;
    let mut interrupts = Interrupts::listen()?;
    let _spinner = printer.spinner(format!("booting and saving {}", args.name));
    let made = tokio::select! {
        // In the foreground, it waits for other processes that make snapshots.
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

/// The machine that later runs of the same image and hardware have.
fn plan(args: &SnapshotArgs) -> Result<Plan> {
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
