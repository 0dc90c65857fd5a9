//! `metaservice api`: one socket for all jobs of this user.

use anyhow::{Context, Result};
use clap::Args;
use metaservice_sandbox::api::{self, Api};
use serde_json::json;

use crate::hints;
use crate::interrupts::Interrupts;
use crate::output;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

const HELP: &str = "\
Example:
  metaservice api &
  SOCKET=~/.local/state/metaservice/api.sock
  curl --unix-socket \"$SOCKET\" http://localhost/v1/jobs
  curl --unix-socket \"$SOCKET\" http://localhost/v1/jobs/build/log

GET /v1/jobs lists the jobs, with all=true also those that have ended. /v1/jobs/JOB/... is the
control API of a job. The verb ends with Ctrl-C.";

/// Serve the control API of all your jobs on one socket.
///
/// The path of the socket is $XDG_STATE_HOME/metaservice/api.sock, and by default
/// ~/.local/state/metaservice/api.sock. It is printed. Only you can open it.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ApiVerb {}

pub(crate) async fn api(printer: Printer) -> Result<ExitStatus> {
    let mut interrupts = Interrupts::listen()?;
    let api = Api::bind().await.map_err(hints::control)?;
    let path = api::socket();
    if printer.is_json() {
        printer.event("listening", json!({ "socket": path }));
    } else {
        output::line(path.display())?;
    }
    tokio::select! {
        served = api.serve() => served.context("the socket is no longer served")?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    }
    Ok(ExitStatus::SUCCESS)
}
