//! `metaservice exec JOB -- COMMAND`: runs one more command in the guest of a job.
//!
//! This module also owns the parts that `shell` shares.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use clap::Args;
use metaservice::control::{Client, ClientError, Code};
use metaservice::{Child, Command, TerminalSize};

use super::fleet::MaybeQueue;
use crate::flags::JobName;
use crate::interrupts::Interrupts;
use crate::output;
use crate::output::printer::{Hint, Printer};
use crate::output::remarks;
use crate::status::ExitStatus;
use crate::terminal::attachment::{Attachment, Parting, attach};
use crate::terminal::{self, Escape, Terminal};

const HELP: &str = "\
Examples:
  metaservice exec -e DEBUG=1 -w /srv -u www-data build -- make check
  metaservice exec --queue local 1f2e3d4c5b6a -- ps

Exit status:
  that of the command; 125 if metaservice failed, 126 if the command cannot be run,
  127 if it is not found, 128+N after signal N.";

/// Run one more command in the guest of a job.
///
/// With --queue, JOB is the id of a job of that queue, on whatever host it runs.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Exec {
    /// Pass standard input to the command.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command your terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Start the command and leave it in the background. It ends with the job.
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) around: AroundArgs,
    #[command(flatten)]
    pub(crate) name: JobName,
    /// The command and its arguments [default with -i: the default shell of the guest].
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) queue: MaybeQueue,
}

/// The environment of a command, and how to leave it.
#[derive(Debug, Args)]
pub(crate) struct AroundArgs {
    /// Set a variable of the command. Without =VALUE, pass your own. Repeatable.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// The working directory in the guest.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// The user: NAME, UID, NAME:GROUP or UID:GID.
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// The keys that end a command with a terminal, or "none".
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", alias = "escape")]
    pub(crate) detach_keys: String,
}

pub(crate) async fn exec(args: Exec, printer: Printer) -> Result<ExitStatus> {
    let escape = Escape::parse(&args.around.detach_keys)?;
    let job = args.name.job;
    if args.command.is_empty() && !args.interactive {
        let hint =
            format!("write `metaservice exec {job} -- COMMAND`, or `metaservice shell {job}`");
        return Err(Error::new(Hint(hint)).context("exec needs a command"));
    }
    let exec = describe(args.around, args.command, args.tty)?;
    if args.detach {
        return start(&job, &args.queue, exec, printer).await;
    }
    let no_terminal = || {
        Error::new(Hint("leave out -t to send standard input as it is".to_owned()))
            .context("-t with -i needs a terminal, and standard input is not one")
    };
    attend(&job, &args.queue, exec, args.interactive, escape, no_terminal, printer).await
}

/// A command with its environment and terminal, from the flags.
#[derive(Clone, PartialEq)]
pub(super) struct Described {
    command: Vec<String>,
    tty: bool,
    env: BTreeMap<String, String>,
    workdir: Option<String>,
    user: Option<String>,
    size: Option<TerminalSize>,
}

impl Described {
    /// Builds the command for `client`.
    fn at<'a>(&self, client: &'a Client) -> Command<'a, Client> {
        let mut command = client.exec(self.command.clone()).envs(self.env.clone());
        if self.tty {
            command = command.terminal();
        }
        if let Some(workdir) = &self.workdir {
            command = command.workdir(workdir);
        }
        if let Some(user) = &self.user {
            command = command.user(user);
        }
        if let Some(size) = self.size {
            command = command.terminal_size(size);
        }
        command
    }
}

pub(super) fn describe(around: AroundArgs, command: Vec<String>, tty: bool) -> Result<Described> {
    let mut env = BTreeMap::new();
    for variable in &around.env {
        metaservice_sandbox::job::set_variable(variable, &mut env).context("in --env")?;
    }
    let AroundArgs { workdir, user, .. } = around;
    Ok(Described { command, tty, env, workdir, user, size: None })
}

/// Starts a command without streams, and prints its process id.
async fn start(
    job: &str,
    queue: &MaybeQueue,
    exec: Described,
    printer: Printer,
) -> Result<ExitStatus> {
    let client = queue.reach_briefly(job, printer).await?;
    let pid = match exec.at(&client).spawn_detached().await {
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

pub(super) async fn attend(
    job: &str,
    queue: &MaybeQueue,
    mut exec: Described,
    interactive: bool,
    escape: Escape,
    no_terminal: impl FnOnce() -> Error,
    printer: Printer,
) -> Result<ExitStatus> {
    let tty = exec.tty;
    let terminal = match (tty, interactive) {
        (false, _) => None,
        (true, true) => Some(Terminal::of_stdin()?.ok_or_else(no_terminal)?),
        (true, false) => Terminal::of_output()?,
    };
    if tty {
        let size = terminal.as_ref().and_then(Terminal::size).or_else(terminal::size);
        exec.size = Some(size.unwrap_or(terminal::USUAL_SIZE));
    }
    let mut interrupts = Interrupts::listen()?;
    let beginning = async {
        let client = queue.reach(job, printer).await?;
        let shell = begin(&client, exec).await.with_context(|| format!("cannot run in {job}"))?;
        anyhow::Ok((client, shell))
    };
    let (client, mut shell) = tokio::select! {
        begun = beginning => begun?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    let attachment = Attachment { interactive, tty, terminal, escape };
    let parting = attach(&mut shell, attachment, &mut interrupts).await;
    let ended = shell.try_wait().and_then(Result::ok);
    for remark in ended.iter().filter_map(|status| status.ending()).flat_map(remarks::on) {
        printer.note(&remark);
    }
    match parting {
        Ok(Parting::Ended(status)) => Ok(status),
        Ok(Parting::Detached) => {
            printer.note("left; what ran in this terminal ends");
            Ok(ExitStatus::SUCCESS)
        }
        // When a job ends, its other commands end too.
        Err(error) if has_ended(&client).await => {
            Err(error.context(format!("the job {job} has ended, and what ran beside it")))
        }
        Err(error) => Err(error),
    }
}

/// Starts the command. With a terminal it also passes `TERM`, if the agent supports that.
async fn begin(client: &Client, exec: Described) -> Result<Child, ClientError> {
    let mut typed = exec.clone();
    if exec.tty {
        terminal::tell_type(&mut typed.env);
    }
    let untyped = typed != exec;
    match typed.at(client).spawn().await {
        Err(ClientError::Refused { code: Code::Unsupported, .. }) if untyped => {
            exec.at(client).spawn().await
        }
        outcome => outcome,
    }
}

/// How long a job that lost its machine may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the job's command has ended, or its service. The connection of a command that runs
/// beside it is cut first: the job has a moment to end.
async fn has_ended(client: &Client) -> bool {
    match tokio::time::timeout(END_TIMEOUT, client.wait()).await {
        Ok(Ok(_) | Err(ClientError::Unreachable(..) | ClientError::Connection(_))) => true,
        Ok(Err(error)) => error.code() == Some(Code::Terminated),
        Err(_) => false,
    }
}
