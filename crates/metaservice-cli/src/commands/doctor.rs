//! `metaservice doctor`: what is there, what is missing, what to type.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use metaservice_vm::{Accelerator, Finding, Report};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::args::DoctorArgs;
use crate::output;
use crate::printer::Printer;
use crate::status::ExitStatus;

/// What `--install` runs; also what a checkout's `make setup` runs.
const SETUP: &str = include_str!("../../setup.sh");

pub(crate) async fn doctor(args: &DoctorArgs, printer: Printer) -> Result<ExitStatus> {
    if args.install {
        install().await?;
    }
    let report = tokio::task::block_in_place(metaservice_vm::find);
    let accelerator = Accelerator::Auto.choose()?;
    if printer.is_json() {
        output::line(as_json(&report, &accelerator.to_string()))?;
    } else {
        print!("{report}");
        output::line(format_args!("ok       {:<9} {accelerator}", "speed"))?;
    }
    match report.require() {
        Ok(_) => Ok(ExitStatus::SUCCESS),
        Err(missing) => {
            if !printer.is_json() {
                output::line(format_args!("\nTo mend this: {}", missing.hint))?;
            }
            Ok(ExitStatus::MISSING)
        }
    }
}

async fn install() -> Result<()> {
    let mut shell = Command::new("sh")
        .args(["-s"])
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run sh")?;
    let mut stdin = shell.stdin.take().context("sh has no stdin")?;
    stdin.write_all(SETUP.as_bytes()).await.context("cannot hand the script to sh")?;
    drop(stdin);
    let status = shell.wait().await?;
    if !status.success() {
        bail!("the installation failed, see above");
    }
    Ok(())
}

fn as_json(report: &Report, accelerator: &str) -> Value {
    fn entry<T: std::fmt::Display>(finding: &Finding<T>) -> Value {
        match finding {
            Finding::Found(thing) => json!({ "found": thing.to_string() }),
            Finding::Missing { problem, hint } => json!({ "missing": problem, "hint": hint }),
        }
    }
    fn path(finding: &Finding<std::path::PathBuf>) -> Value {
        match finding {
            Finding::Found(path) => json!({ "found": path }),
            Finding::Missing { problem, hint } => json!({ "missing": problem, "hint": hint }),
        }
    }
    json!({
        "qemu": entry(&report.qemu),
        "kernel": entry(&report.kernel),
        "busybox": path(&report.busybox),
        "qemu-img": path(&report.qemu_img),
        "accelerator": accelerator,
    })
}
