//! `metaservice exec JOB -- COMMAND` and `shell JOB`: a command beside the job's own.

use std::collections::BTreeMap;

use anyhow::{Context, Error, Result};
use metaservice::control::{Client, ClientError, Code, JobState};
use metaservice::{Exec, ExecOptions, Shell};

use crate::args::{AroundArgs, ExecArgs, ShellArgs};
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output;
use crate::output::printer::{Hint, Printer};
use crate::output::remarks;
use crate::status::ExitStatus;
use crate::terminal::attachment::{Attachment, Parting, attach};
use crate::terminal::{self, Escape, Terminal};

pub(crate) async fn exec(args: ExecArgs, printer: Printer) -> Result<ExitStatus> {
    let escape = Escape::parse(&args.around.escape)?;
    let job = args.name.job;
    if args.command.is_empty() && !args.interactive {
        let hint =
            format!("write `metaservice exec {job} -- COMMAND`, or `metaservice shell {job}`");
        return Err(Error::new(Hint(hint)).context("exec needs a command"));
    }
    let exec = describe(args.around, args.command, args.tty)?;
    if args.detach {
        return start(&job, exec, printer).await;
    }
    let no_terminal = || {
        Error::new(Hint("leave out -t to send standard input as it is".to_owned()))
            .context("-t with -i needs a terminal, and standard input is none")
    };
    attend(&job, exec, args.interactive, escape, no_terminal, printer).await
}

pub(crate) async fn shell(args: ShellArgs, printer: Printer) -> Result<ExitStatus> {
    let escape = Escape::parse(&args.around.escape)?;
    let job = args.name.job;
    let exec = describe(args.around, args.command, true)?;
    let no_terminal = || {
        let hint = format!("write `metaservice exec -i {job} -- sh` to send it a script");
        Error::new(Hint(hint)).context("a shell needs a terminal, and standard input is none")
    };
    attend(&job, exec, true, escape, no_terminal, printer).await
}

fn describe(around: AroundArgs, command: Vec<String>, tty: bool) -> Result<Exec> {
    let mut env = BTreeMap::new();
    for variable in &around.env {
        metaservice_sandbox::job::set_variable(variable, &mut env).context("in --env")?;
    }
    let AroundArgs { workdir, user, .. } = around;
    Ok(Exec { command, tty, options: ExecOptions { env, workdir, user, ..ExecOptions::default() } })
}

/// Starts a command and leaves it alone.
async fn start(job: &str, mut exec: Exec, printer: Printer) -> Result<ExitStatus> {
    exec.options.detach = true;
    let client = metaservice_sandbox::control::find(job).await.map_err(hints::control)?;
    let pid = match client.exec_detached(exec).await {
        Ok(pid) => pid,
        Err(error) => {
            let status = match error.code() {
                Some(Code::NotFound) => ExitStatus(127),
                Some(Code::InvalidRequest) => ExitStatus(126),
                _ => ExitStatus::FAILED,
            };
            let error = Error::new(error).context(format!("cannot run in {job}"));
            printer.error(&error);
            return Ok(status);
        }
    };
    output::line(format_args!("{pid}"))?;
    Ok(ExitStatus::SUCCESS)
}

async fn attend(
    job: &str,
    mut exec: Exec,
    interactive: bool,
    escape: Escape,
    no_terminal: impl FnOnce() -> Error,
    printer: Printer,
) -> Result<ExitStatus> {
    let client = metaservice_sandbox::control::find(job).await.map_err(hints::control)?;
    let tty = exec.tty;
    let terminal = match (tty, interactive) {
        (false, _) => None,
        (true, true) => Some(Terminal::of_stdin()?.ok_or_else(no_terminal)?),
        (true, false) => Terminal::of_output()?,
    };
    if tty {
        let size = terminal.as_ref().and_then(Terminal::size).or_else(terminal::size);
        exec.options.size = Some(size.unwrap_or(terminal::USUAL_SIZE));
    }
    let mut interrupts = Interrupts::listen()?;
    let mut shell = tokio::select! {
        shell = begin(&client, exec) => shell.with_context(|| format!("cannot run in {job}"))?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    let attachment = Attachment { interactive, tty, terminal, escape };
    let parting = attach(&mut shell, attachment, &mut interrupts).await;
    for remark in shell.ending().iter().flat_map(remarks::on) {
        printer.note(&remark);
    }
    match parting {
        Ok(Parting::Ended(status)) => Ok(status),
        Ok(Parting::Detached) => {
            printer.note("left; what ran in this terminal ends");
            Ok(ExitStatus::SUCCESS)
        }
        // A job that ends takes its shells along.
        Err(error) if has_ended(&client).await => {
            Err(error.context(format!("the job {job} has ended, and what ran beside it")))
        }
        Err(error) => Err(error),
    }
}

/// Starts it; with a terminal the command learns its type, where the agent can be told.
async fn begin(client: &Client, exec: Exec) -> Result<Shell, ClientError> {
    let mut typed = exec.clone();
    if exec.tty {
        terminal::tell_type(&mut typed.options.env);
    }
    let untyped = typed != exec;
    match client.exec(typed).await {
        Err(ClientError::Refused { code: Code::Unsupported, .. }) if untyped => {
            client.exec(exec).await
        }
        outcome => outcome,
    }
}

/// Whether the job's command has ended, or its service.
async fn has_ended(client: &Client) -> bool {
    match client.job().await {
        Ok(job) => !matches!(job.state, JobState::Waiting | JobState::Running),
        Err(ClientError::Unreachable(..)) => true,
        Err(_) => false,
    }
}
