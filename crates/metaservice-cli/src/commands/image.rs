//! `metaservice image`: what machines start from.

use anyhow::Result;

use crate::args::{SnapshotArgs, VmArgs};
use crate::interrupts::Interrupts;
use crate::printer::Printer;
use crate::status::ExitStatus;
use crate::warm;

pub(crate) async fn snapshot(args: &SnapshotArgs, printer: Printer) -> Result<ExitStatus> {
    if args.background {
        // It is nicer, and no reason to fail.
        let _ = rustix::process::nice(19);
    }
    let mut interrupts = Interrupts::listen()?;
    let machine = VmArgs::builtin(args.cpus, args.memory.clone(), args.accel);
    let _spinner = printer.spinner(format!("booting and saving {}", args.name));
    tokio::select! {
        made = warm::make(&machine) => {
            if !made? {
                printer.note("it is there, or being made");
            }
            Ok(ExitStatus::SUCCESS)
        }
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}
