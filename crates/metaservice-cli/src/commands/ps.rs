//! `metaservice ps`: the jobs of this user that run on this host.

use anyhow::Result;
use metaservice::control::JobState;
use serde_json::json;

use crate::contact;
use crate::output;
use crate::printer::{Printer, json_text, printable};
use crate::sockets;
use crate::status::ExitStatus;

pub(crate) async fn ps(printer: Printer) -> Result<ExitStatus> {
    let mut jobs = Vec::new();
    for client in sockets::all().await? {
        // A job that ends this moment is no error of the listing.
        if let Ok(job) = client.job().await {
            jobs.push(job);
        }
    }
    if printer.is_quiet() {
        for job in jobs {
            output::line(printable(&job.name))?;
        }
        return Ok(ExitStatus::SUCCESS);
    }
    if printer.is_json() {
        output::line(json_text(&json!(jobs).to_string()))?;
        return Ok(ExitStatus::SUCCESS);
    }
    output::line(format_args!("{:<20} {:<10} {:<8} COMMAND", "NAME", "STATE", "PID"))?;
    for job in jobs {
        let state = serde_json::to_value(job.state)?;
        let ended = matches!(job.state, JobState::Succeeded | JobState::Failed);
        let contact = contact::word(job.contact).filter(|_| !ended);
        let state = contact.or(state.as_str()).unwrap_or_default();
        let command = printable(&job.command.join(" ")).replace('\n', " ");
        output::line(format_args!("{:<20} {state:<10} {:<8} {command}", job.name, job.pid))?;
    }
    Ok(ExitStatus::SUCCESS)
}
