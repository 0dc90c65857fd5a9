//! `metaservice exec JOB -- COMMAND` and `shell JOB`: a command beside the job's own.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use metaservice::{Exec, ExecOptions};

use crate::args::{AroundArgs, ExecArgs, ShellArgs};
use crate::attachment::{Attachment, Parting, attach};
use crate::interrupts::Interrupts;
use crate::output;
use crate::printer::Printer;
use crate::remarks;
use crate::settings;
use crate::sockets;
use crate::status::ExitStatus;
use crate::terminal::{Escape, Terminal};

pub(crate) async fn exec(args: ExecArgs, printer: Printer) -> Result<ExitStatus> {
    let escape = Escape::parse(&args.around.escape)?;
    let exec = describe(args.around, args.command, args.tty)?;
    if args.detach {
        return start(&args.name.job, exec).await;
    }
    attend(&args.name.job, exec, args.interactive, escape, printer).await
}

pub(crate) async fn shell(args: ShellArgs, printer: Printer) -> Result<ExitStatus> {
    let escape = Escape::parse(&args.around.escape)?;
    let exec = describe(args.around, args.command, true)?;
    attend(&args.name.job, exec, true, escape, printer).await
}

fn describe(around: AroundArgs, command: Vec<String>, tty: bool) -> Result<Exec> {
    let mut env = BTreeMap::new();
    for variable in &around.env {
        settings::set_variable(variable, &mut env).context("in --env")?;
    }
    let AroundArgs { workdir, user, .. } = around;
    Ok(Exec { command, tty, options: ExecOptions { env, workdir, user, ..ExecOptions::default() } })
}

/// Starts a command and leaves it alone.
async fn start(job: &str, mut exec: Exec) -> Result<ExitStatus> {
    exec.options.detach = true;
    let client = sockets::find(job).await?;
    let pid = client.exec_detached(exec).await.with_context(|| format!("cannot run in {job}"))?;
    output::line(format_args!("{pid}"))?;
    Ok(ExitStatus::SUCCESS)
}

async fn attend(
    job: &str,
    mut exec: Exec,
    interactive: bool,
    escape: Escape,
    printer: Printer,
) -> Result<ExitStatus> {
    let terminal = exec.tty.then(Terminal::open).transpose()?;
    exec.options.size = terminal.as_ref().and_then(Terminal::size);
    let client = sockets::find(job).await?;
    let mut interrupts = Interrupts::listen()?;
    let mut shell = tokio::select! {
        shell = client.exec(exec) => shell.with_context(|| format!("cannot run in {job}"))?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    let attachment = Attachment { interactive, terminal, escape };
    let parting = attach(&mut shell, attachment, &mut interrupts).await?;
    for remark in shell.ending().iter().flat_map(remarks::on) {
        printer.note(&remark);
    }
    match parting {
        Parting::Ended(status) => Ok(status),
        Parting::Detached => {
            printer.note("left; what ran in this terminal ends");
            Ok(ExitStatus::SUCCESS)
        }
    }
}
