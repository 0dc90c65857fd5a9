//! `metaservice attach JOB`: shows the output of a running job, and feeds its command.

use std::pin::Pin;

use anyhow::{Context, Error, Result};
use clap::Args;
use metaservice::control::{Client, ClientError, Code, Job};
use metaservice::{JobStdin, LogFrom};

use super::logs::{self, Outputs, Shown};
use crate::flags::JobName;
use crate::hints;
use crate::interrupts::{Interrupt, Interrupts};
use crate::jobs;
use crate::output;
use crate::output::printer::Printer;
use crate::status::ExitStatus;
use crate::terminal::Escape;
use crate::terminal::stdin::{Fed, UserInput};

const HELP: &str = "\
Examples:
  metaservice attach db
  tar c . | metaservice attach build
  metaservice attach --no-stdin build

Exit status: that of the job; 0 after the detach keys, 128+N after signal N.";

/// Attach to a running job: its output, its standard input, its terminal.
///
/// The log is shown from its beginning, or, if the job has a terminal, from now on. Without a
/// terminal, Ctrl-C goes to the command, and a second one leaves the job.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Attach {
    /// Only watch: send neither input nor signals to the command.
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// The keys that leave a job with a terminal, or "none". The job continues.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: String,
    #[command(flatten)]
    pub(crate) name: JobName,
}

pub(crate) async fn attach(args: Attach, printer: Printer) -> Result<ExitStatus> {
    let escape = Escape::parse(&args.detach_keys)?;
    let name = &args.name.job;
    let mut interrupts = Interrupts::listen()?;
    let attaching = async {
        let client = jobs::running(name, printer).await?;
        let attached = Attached::open(&client, name, args.no_stdin, escape, printer).await?;
        Ok::<_, Error>((client, attached))
    };
    let (client, attached) = tokio::select! {
        attached = attaching => attached?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    let left = attached.run(&client, &mut interrupts, printer).await;
    match left.with_context(|| format!("cannot stay attached to {name}"))? {
        Left::Ended(job) => Ok(ExitStatus(job.status.context("the job ended without a status")?)),
        Left::Detached => {
            printer.note(&format!("detached: {name} still runs"));
            Ok(ExitStatus::SUCCESS)
        }
        Left::Interrupted(interrupt) => Ok(ExitStatus::signal(interrupt.number)),
        Left::Unread => Ok(ExitStatus::UNREAD),
    }
}

/// Why the attachment has ended.
enum Left {
    /// The job has ended.
    Ended(Box<Job>),
    Detached,
    Interrupted(Interrupt),
    /// The reader has closed standard output.
    Unread,
}

/// What passes between the user and the job.
struct Attached {
    /// `None`: only to watch.
    input: Option<(UserInput, JobStdin)>,
    /// Whether the first signal is for the command.
    forwards: bool,
    tty: bool,
}

impl Attached {
    async fn open(
        client: &Client,
        name: &str,
        watches: bool,
        escape: Escape,
        printer: Printer,
    ) -> Result<Self> {
        let failed = || format!("cannot attach to {name}");
        let Job { stdin, tty, .. } = client.job().await.with_context(failed)?;
        let takes = (stdin || tty) && !watches;
        let stdin = match takes {
            true => match client.attach().await {
                Ok(attached) => Some((UserInput::of_attach(stdin, tty, escape)?, attached)),
                // Another client has the terminal. There is nothing else to send.
                Err(error) if is_busy(&error) && !stdin => None,
                Err(error) if is_busy(&error) => {
                    let hint = format!("write `metaservice attach --no-stdin {name}` to watch it");
                    let error = format!("{:#}", Error::new(error));
                    return Err(hints::hinted(hint, error).context(failed()));
                }
                Err(error) if error.code() == Some(Code::Refused) => {
                    printer.note("the standard input of the command has ended: only its output");
                    None
                }
                Err(error) => return Err(Error::new(error).context(failed())),
            },
            false => None,
        };
        // If every key goes to the guest, a signal is meant for this process.
        let forwards = !watches && !stdin.as_ref().is_some_and(|(input, _)| input.takes_keys());
        Ok(Self { input: stdin, forwards, tty })
    }

    async fn run(
        self,
        client: &Client,
        interrupts: &mut Interrupts,
        printer: Printer,
    ) -> Result<Left> {
        let Self { input, mut forwards, tty } = self;
        let answers = input.as_ref().is_some_and(|(input, _)| input.takes_keys());
        let from = if tty { LogFrom::Tail(0) } else { LogFrom::Start };
        let log = client.log_segments(from, true).await?;
        let mut showing = std::pin::pin!(logs::show(log, Outputs::of_command(answers)));
        let mut feeding: Option<Pin<Box<dyn Future<Output = Result<Fed>>>>> = None;
        if let Some((input, stdin)) = input {
            feeding = Some(Box::pin(input.feed(stdin)));
        }
        let mut forwarding = None;
        // The service ends soon after the job, and answers those who wait then.
        let mut waiting = Some(Box::pin(client.wait()));
        let (mut ended, mut is_shown) = (None, false);
        loop {
            tokio::select! {
                biased;
                shown = &mut showing, if !is_shown => match shown {
                    Ok(Shown::Unread) => return Ok(Left::Unread),
                    Err(error) if output::is_closed(&error) => return Ok(Left::Unread),
                    Ok(Shown::Whole) => is_shown = true,
                    Err(error) => return Err(error),
                },
                job = complete(&mut waiting) => {
                    waiting = None;
                    ended = Some(Box::new(job?));
                }
                interrupt = interrupts.next() => {
                    let first = std::mem::take(&mut forwards) && interrupt.name != "SIGHUP";
                    if !first {
                        return Ok(Left::Interrupted(interrupt));
                    }
                    forwarding = Some(Box::pin(client.signal(interrupt.number)));
                }
                sent = complete(&mut forwarding) => {
                    forwarding = None;
                    if let Err(error) = sent {
                        printer.error(&Error::new(error).context("the signal is not sent"));
                    }
                }
                fed = complete(&mut feeding) => {
                    feeding = None;
                    match fed {
                        Ok(Fed::Detached) => return Ok(Left::Detached),
                        Ok(Fed::Over) => {}
                        Err(error) => printer.error(&error),
                    }
                }
            }
            if let Some(job) = ended.take_if(|_| is_shown) {
                return Ok(Left::Ended(job));
            }
        }
    }
}

fn is_busy(error: &ClientError) -> bool {
    error.code() == Some(Code::Busy)
}

/// Completes with the future, if there is one.
async fn complete<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
