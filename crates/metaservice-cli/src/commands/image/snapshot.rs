//! `metaservice image snapshot`: a machine that waits for a job, to go on from.

use anyhow::Result;
use metaservice_image::ImageStore;
use serde_json::json;

use crate::args::{CloudArgs, SnapshotArgs, VmArgs};
use crate::image::Image;
use crate::interrupts::Interrupts;
use crate::machine::Plan;
use crate::printer::Printer;
use crate::status::ExitStatus;
use crate::warm::{self, Made};

/// Our own guest.
const BUILTIN: &str = "builtin";

pub(super) async fn snapshot(args: &SnapshotArgs, printer: Printer) -> Result<ExitStatus> {
    if args.background {
        // It is nicer, and no reason to fail.
        let _ = rustix::process::nice(19);
    }
    let plan = if args.name == BUILTIN {
        Plan::builtin(args.hardware.clone(), printer)
    } else {
        let image = Image::kept(&ImageStore::of_user()?, &args.name)?;
        let machine = VmArgs::plain(args.hardware.clone());
        Plan::of(machine, Some(image), &CloudArgs::default(), printer)?
    };
    let mut interrupts = Interrupts::listen()?;
    let _spinner = printer.spinner(format!("booting and saving {}", args.name));
    let made = tokio::select! {
        // Who asks for it waits until others have made theirs.
        made = warm::make(&plan, !args.background) => made?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    match made {
        Made::Now => printer.note(&format!("a machine of {} is saved", args.name)),
        Made::Before => printer.note(&format!("a machine of {} is saved already", args.name)),
        Made::Busy => {}
    }
    printer.event("saved", json!({ "name": args.name, "already": made == Made::Before }));
    Ok(ExitStatus::SUCCESS)
}
