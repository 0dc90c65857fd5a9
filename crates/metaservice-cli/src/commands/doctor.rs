//! `metaservice doctor`: checks dependencies, suggests fixes, and installs what is missing.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use clap::Args;
use metaservice_qemu::{Accelerator, Arch, Boundary, Finding, Report};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::output;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

/// Check dependencies and suggest fixes.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Install what is missing (Debian and Ubuntu).
    #[arg(long)]
    pub(crate) install: bool,
}

/// The script of `--install`. `make setup` runs it too.
const SETUP: &str = include_str!("../../setup.sh");

pub(crate) async fn doctor(args: &Doctor, printer: Printer) -> Result<ExitStatus> {
    if args.install {
        install().await?;
    }
    let report = tokio::task::block_in_place(metaservice_qemu::check);
    let boundary = tokio::task::block_in_place(Boundary::of_host);
    let accelerator = Accelerator::Auto.choose(Arch::HOST)?;
    let missing = report.require().err();
    let shown = if printer.is_json() {
        output::line(as_json(&report, &accelerator.to_string(), boundary))
    } else {
        let advice = missing.as_ref().map(|missing| format!("\n\nTo mend this: {}", missing.hint));
        let advice = advice.unwrap_or_default();
        let state = if boundary.is_complete() { "ok" } else { "weak" };
        let speed = format_args!("ok       {:<9} {accelerator}", "speed");
        let boundary = format_args!("{state:<8} {:<9} {boundary}", "boundary");
        output::line(format_args!("{report}{speed}\n{boundary}{advice}"))
    };
    // If the reader has closed standard output, the exit status still has the result.
    if let Err(error) = shown.map_err(anyhow::Error::from)
        && !output::is_closed(&error)
    {
        return Err(error);
    }
    Ok(if missing.is_none() { ExitStatus::SUCCESS } else { ExitStatus::MISSING })
}

async fn install() -> Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-s"]).stdin(Stdio::piped()).kill_on_drop(true);
    // Some installers examine each possible descriptor, which is slow with a high limit.
    metaservice_qemu::without_descriptors(shell.as_std_mut());
    let mut shell = shell.spawn().context("cannot run sh")?;
    let mut stdin = shell.stdin.take().context("sh has no stdin")?;
    stdin.write_all(SETUP.as_bytes()).await.context("cannot hand the script to sh")?;
    drop(stdin);
    let status = shell.wait().await?;
    if !status.success() {
        bail!("the installation failed, see above");
    }
    Ok(())
}

fn as_json(report: &Report, accelerator: &str, boundary: Boundary) -> Value {
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
        "boundary": { "complete": boundary.is_complete(), "text": boundary.to_string() },
    })
}
