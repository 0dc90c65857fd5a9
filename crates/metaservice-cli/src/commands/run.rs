//! `metaservice run`: run a command in a virtual machine, and exit with its status.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::Result;
use clap::ValueEnum;
use metaservice_sandbox::machine::{Plan, snapshot};
use metaservice_sandbox::{Launcher, job::Job};

use crate::args::{DryRun, HardwareArgs, RunArgs};
use crate::description::Description;
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output::events::{self, Told};
use crate::output::printer::{Printer, json_text, printable};
use crate::output::{self, AsyncOutput};
use crate::status::ExitStatus;

pub(crate) async fn run(args: RunArgs, printer: Printer) -> Result<ExitStatus> {
    let (dry_run, hardware) = (args.dry_run, args.vm.hardware.clone());
    let description = Description::of_run(args)?;
    if dry_run == Some(DryRun::Json) {
        return print_description(description);
    }
    let job = description.check()?;
    let plan = tokio::task::block_in_place(|| Plan::resolve(&job));
    let plan = plan.map_err(|error| hints::plan(error, CLOUD_HINT))?;
    if dry_run.is_some() {
        return print_plan(&job, &plan);
    }
    let mut interrupts = Interrupts::listen()?;
    output::warn_of_closed(&job, printer);
    let told = Told::of(&job, Some(plan.boot_timeout()), None);
    let launching = Launcher::new(job).log(AsyncOutput::new()).launch(plan);
    // A FIFO that gets the log opens when its reader comes.
    let sandbox = tokio::select! {
        launched = launching => launched.map_err(hints::launch)?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    let report = events::follow(sandbox, &mut interrupts, &told, printer).await;
    let wants_snapshot = report.wants_snapshot;
    let status = events::conclude(report, &told, printer)?;
    if wants_snapshot && let Err(error) = make_snapshot_later(&hardware) {
        tracing::debug!(%error, "no snapshot is made for the next run");
    }
    Ok(status)
}

/// What to do about keys and user data without an image that takes them.
const CLOUD_HINT: &str = "give --image DISK as well, and no --kernel";

/// Prints the description of the job, as `--spec` takes it.
fn print_description(description: Description) -> Result<ExitStatus> {
    let json = serde_json::to_string_pretty(&description.spec)?;
    description.check()?;
    output::line(json_text(&json))?;
    Ok(ExitStatus::SUCCESS)
}

/// Prints what the machine would be made of.
fn print_plan(job: &Job, plan: &Plan) -> Result<ExitStatus> {
    let summary = plan.summary();
    let restores = tokio::task::block_in_place(|| snapshot::exists(plan)).unwrap_or(false);
    let start = match (restores, summary.snapshot) {
        (true, _) => "restored from a snapshot",
        (false, true) => "booted: there is no snapshot yet",
        (false, false) => "booted: this machine has no snapshot",
    };
    let timeout = humantime::format_duration(plan.boot_timeout());
    let usual = if plan.boots_itself() { "of the image" } else { "builtin" };
    let kernel = summary.kernel.map_or(usual.to_owned(), |path| path.display().to_string());
    let rows = [
        ("job", job.name().to_owned()),
        ("command", job.command().join(" ")),
        ("image", summary.image),
        ("digest", summary.digest.unwrap_or_else(|| "-".to_owned())),
        ("kernel", kernel),
        ("processors", summary.cpus.to_string()),
        ("memory", format!("{} MiB", summary.memory >> 20)),
        ("accelerator", summary.accelerator.to_owned()),
        ("network", summary.network.to_owned()),
        ("start", start.to_owned()),
        ("boot timeout", timeout.to_string()),
    ];
    for (name, value) in rows {
        output::line(format_args!("{name:<13} {}", printable(&value)))?;
    }
    Ok(ExitStatus::SUCCESS)
}

/// Makes a snapshot for the next run, by a process of its own: this one does not wait for it.
fn make_snapshot_later(hardware: &HardwareArgs) -> std::io::Result<()> {
    let HardwareArgs { cpus, memory, accel } = hardware;
    let accel = accel.to_possible_value();
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--quiet", "image", "snapshot", "builtin", "--background"])
        .args(["--cpus", &cpus.to_string(), "--memory", memory])
        .args(["--accel", accel.as_ref().map_or("auto", |accel| accel.get_name())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Neither a process that waits for the directory nor Ctrl-C is meant for it.
        .current_dir("/")
        .process_group(0);
    // Otherwise a pipe of the caller's would end with this process only.
    metaservice_qemu::without_descriptors(&mut command);
    command.spawn().map(drop)
}
