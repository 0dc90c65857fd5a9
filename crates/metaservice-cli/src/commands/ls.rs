//! `metaservice ls JOB PATH`: the plain files below a folder of the guest's.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};
use serde_json::json;

use crate::args::LsArgs;
use crate::printer::{Printer, printable};
use crate::sockets;
use crate::status::ExitStatus;

pub(crate) async fn ls(args: LsArgs, printer: Printer) -> Result<ExitStatus> {
    let client = sockets::find(&args.job).await?;
    let files = client
        .list_folder(&args.path)
        .await
        .with_context(|| format!("cannot list {}", args.path))?;
    let mut stdout = std::io::stdout().lock();
    let show = stdout.is_terminal();
    if printer.is_json() {
        writeln!(stdout, "{}", json!(files))?;
        return Ok(ExitStatus::SUCCESS);
    }
    for file in files {
        // The names are the guest's words.
        let file = if show { printable(&file).replace('\n', "\u{fffd}") } else { file };
        writeln!(stdout, "{file}")?;
    }
    Ok(ExitStatus::SUCCESS)
}
