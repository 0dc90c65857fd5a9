//! `metaservice image snapshot`: a machine that waits for a job, to go on from.

use anyhow::Result;
use metaservice_vm::ImageStore;

use crate::args::{CloudArgs, SnapshotArgs, VmArgs};
use crate::image::Image;
use crate::interrupts::Interrupts;
use crate::machine::Plan;
use crate::printer::Printer;
use crate::status::ExitStatus;
use crate::warm;

/// Our own guest.
const BUILTIN: &str = "builtin";

pub(super) async fn snapshot(args: &SnapshotArgs, printer: Printer) -> Result<ExitStatus> {
    if args.background {
        // It is nicer, and no reason to fail.
        let _ = rustix::process::nice(19);
    }
    let plan = if args.name == BUILTIN {
        Plan::builtin(args.hardware.clone())
    } else {
        let image = Image::kept(&ImageStore::of_user()?, &args.name)?;
        let machine = VmArgs::plain(args.hardware.clone());
        Plan::of(machine, Some(image), &CloudArgs::default())?
    };
    let mut interrupts = Interrupts::listen()?;
    let _spinner = printer.spinner(format!("booting and saving {}", args.name));
    tokio::select! {
        made = warm::make(&plan) => {
            if !made? {
                printer.note("it is there, or being made");
            }
            Ok(ExitStatus::SUCCESS)
        }
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}
