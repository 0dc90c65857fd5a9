//! What a run in the foreground and one in the background share: the plan of the machine before it,
//! and the snapshot after it.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::Result;
use metaservice_sandbox::job::Job;
use metaservice_sandbox::machine::{Plan, PlanSummary};

use crate::description::Description;
use crate::hints;

/// What to do about keys and user data without an image that takes them.
const CLOUD_HINT: &str = "give --image DISK as well, and no --kernel";

/// The checked job, and the machine for it.
pub(super) fn plan(description: Description) -> Result<(Job, Plan)> {
    let job = description.check()?;
    let plan = tokio::task::block_in_place(|| Plan::resolve(&job));
    Ok((job, plan.map_err(|error| hints::plan(error, CLOUD_HINT))?))
}

/// Makes a snapshot for the next run in another process. Does not wait for it.
pub(super) fn make_snapshot_later(machine: &PlanSummary) {
    if let Err(error) = make_snapshot(machine) {
        tracing::debug!(%error, "no snapshot is made for the next run");
    }
}

fn make_snapshot(machine: &PlanSummary) -> std::io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(snapshot_arguments(machine))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // It keeps no directory in use, and Ctrl-C here does not end it.
        .current_dir("/")
        .process_group(0);
    // Otherwise the reader of a pipe of this process would wait for it.
    metaservice_qemu::without_descriptors(&mut command);
    command.spawn().map(drop)
}

/// The arguments that make a snapshot of the same machine, whether flags or a file describe it.
pub(super) fn snapshot_arguments(machine: &PlanSummary) -> Vec<String> {
    let (cpus, memory) = (machine.cpus.to_string(), format!("{}M", machine.memory >> 20));
    let words = ["--quiet", "image", "snapshot", "builtin", "--background", "--cpus", &cpus];
    let more = ["--memory", &memory, "--accel", machine.accelerator];
    words.into_iter().chain(more).map(str::to_owned).collect()
}
