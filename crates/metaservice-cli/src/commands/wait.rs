//! `metaservice wait JOB`: wait until a job ends, print its status and exit with it.

use anyhow::{Context, Result};
use serde_json::json;

use crate::args::JobName;
use crate::interrupts::Interrupts;
use crate::printer::Printer;
use crate::sockets;
use crate::status::ExitStatus;

pub(crate) async fn wait(name: JobName, printer: Printer) -> Result<ExitStatus> {
    let client = sockets::find(&name.job).await?;
    let mut interrupts = Interrupts::listen()?;
    let job = tokio::select! {
        job = client.wait() => job.with_context(|| format!("cannot wait for {}", name.job))?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    let status = job.status.context("the job ended without a status")?;
    if printer.is_json() {
        println!("{}", json!(job));
    } else {
        println!("{status}");
    }
    Ok(ExitStatus(status))
}
