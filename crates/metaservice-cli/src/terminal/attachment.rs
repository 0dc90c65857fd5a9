//! Connects the user's terminal, standard streams and signals to a command in the guest.
//!
//! With a terminal, every key goes to the guest, Ctrl-C included. Only the escape sequence and
//! signals from other processes end the attachment.
//!
//! Without a terminal, the first Ctrl-C goes to the guest as a signal, and the second one ends this
//! process. So does the end of [`TERM_GRACE`] after a SIGTERM. If standard output is a terminal
//! that the command was not given, the output is sanitized. If the command has a terminal but no
//! input, it asks the terminal nothing.
//!
//! [`attach`] always restores the terminal before it returns.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result};
use metaservice::{Child, ChildOutput, ChildStdin};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::interrupts::Interrupts;
use crate::output::questions::QuestionFilter;
use crate::output::sanitize::Sanitizer;
use crate::status::ExitStatus;
use crate::terminal::{Escape, Input, Terminal};

/// How many bytes of standard input are read at once.
const BLOCK: usize = 64 * 1024;

/// SIGTERM, and how long a command may run after it. `timeout` sends the signal only once.
const SIGTERM: u8 = 15;
const TERM_GRACE: Duration = Duration::from_secs(5);

/// What of this process the command gets.
pub(crate) struct Attachment {
    /// Whether the command gets standard input.
    pub(crate) interactive: bool,
    /// Whether the command has a terminal.
    pub(crate) tty: bool,
    /// The user's terminal, if there is one.
    pub(crate) terminal: Option<Terminal>,
    /// The keys that detach from the command.
    pub(crate) escape: Escape,
}

/// Why the attachment ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// The command ended, or a signal ended this process.
    Ended(ExitStatus),
    /// The user detached from the command.
    Detached,
}

/// Attaches to the command until it ends or the user detaches.
///
/// # Errors
/// If the connection to the command is lost, or its output cannot be written.
pub(crate) async fn attach(
    shell: &mut Child,
    with: Attachment,
    interrupts: &mut Interrupts,
) -> Result<Parting> {
    let Attachment { interactive, tty, terminal, escape } = with;
    let mut resized = listen(SignalKind::window_change())?;
    let mut continued = listen(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?;
    let (stdin, stdout, stderr) = (shell.stdin.take(), shell.stdout.take(), shell.stderr.take());
    // The guard restores the terminal on each way out of this function.
    let raw = match &terminal {
        Some(terminal) if interactive => Some(terminal.make_raw()?),
        Some(terminal) => Some(terminal.make_output_raw()?),
        None => None,
    };
    // If keys go to the guest, a signal does not come from a key. It is meant for this process.
    let mut patient = !(interactive && tty);
    let mut deadline = None;
    let shell = &*shell;
    let follow = || {
        if let Some(size) = terminal.as_ref().and_then(Terminal::size) {
            shell.set_size(size.columns, size.rows);
        }
    };
    follow();

    let cleaning = match (tty, interactive) {
        (false, _) => Cleaning::Sanitize,
        (true, false) => Cleaning::Questions,
        (true, true) => Cleaning::None,
    };
    let mut ended = pin!(end(shell, stdout, stderr, cleaning));
    let mut feeding = pin!(feed(stdin, interactive, tty, escape));
    let mut fed = false;
    loop {
        tokio::select! {
            biased;
            status = &mut ended => return Ok(Parting::Ended(status?)),
            interrupt = interrupts.next() => {
                let first = std::mem::take(&mut patient) && interrupt.name != "SIGHUP";
                if !(first && shell.signal(interrupt.number)) {
                    shell.abort();
                    return Ok(Parting::Ended(ExitStatus::signal(interrupt.number)));
                }
                if interrupt.number == SIGTERM {
                    deadline = Some(Instant::now() + TERM_GRACE);
                }
            }
            () = until(deadline) => {
                shell.abort();
                return Ok(Parting::Ended(ExitStatus::signal(SIGTERM)));
            }
            _ = resized.recv() => follow(),
            _ = continued.recv() => {
                // After a stop, the shell has changed the terminal's settings.
                if let Some(raw) = &raw {
                    raw.apply().context("cannot change the terminal's settings")?;
                }
                follow();
            }
            left = &mut feeding, if !fed => match left? {
                true => return Ok(Parting::Detached),
                false => fed = true,
            },
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Writes the output of the command until it ends.
async fn end(
    shell: &Child,
    stdout: Option<ChildOutput>,
    stderr: Option<ChildOutput>,
    cleaning: Cleaning,
) -> Result<ExitStatus> {
    let cleaner = |is_terminal| if is_terminal { cleaning.begin() } else { Cleaner::None };
    let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
    let shown = tokio::try_join!(
        show(stdout, tokio::io::stdout(), cleaner(out)),
        show(stderr, tokio::io::stderr(), cleaner(err)),
    );
    match shown {
        Ok(_) => {}
        Err(Unshown::Cut) => {}
        Err(Unshown::Here(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            shell.abort();
            return Ok(ExitStatus::UNREAD);
        }
        Err(Unshown::Here(error)) => {
            shell.abort();
            return Err(error).context("cannot show the command's output");
        }
    }
    let status = shell.wait().await?;
    Ok(match status.ending() {
        _ if status.success() => ExitStatus::SUCCESS,
        // A failure must not have the status of a success.
        Some(ending) => ExitStatus(ending.shell_status().max(1)),
        None => ExitStatus(1),
    })
}

/// What is done to output for a terminal.
#[derive(Debug, Clone, Copy)]
enum Cleaning {
    None,
    /// The command was not given the terminal.
    Sanitize,
    /// The command does not get what the terminal answers.
    Questions,
}

impl Cleaning {
    fn begin(self) -> Cleaner {
        match self {
            Self::None => Cleaner::None,
            Self::Sanitize => Cleaner::Sanitize(Sanitizer::default()),
            Self::Questions => Cleaner::Questions(QuestionFilter::default()),
        }
    }
}

/// The state of one output.
enum Cleaner {
    None,
    Sanitize(Sanitizer),
    Questions(QuestionFilter),
}

impl Cleaner {
    /// What to show for these bytes, which are empty at the end.
    fn clean<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match self {
            Self::None => Cow::Borrowed(bytes),
            Self::Sanitize(sanitizer) if bytes.is_empty() => {
                Cow::Owned(sanitizer.end().into_bytes())
            }
            Self::Sanitize(sanitizer) => Cow::Owned(sanitizer.sanitize(bytes).into_bytes()),
            Self::Questions(filter) => {
                let mut shown = Vec::with_capacity(bytes.len());
                filter.filter(bytes, &mut shown);
                Cow::Owned(shown)
            }
        }
    }
}

/// Why the output was not written completely.
enum Unshown {
    /// It was cut off in the guest or on the way. `Child::wait` returns the cause.
    Cut,
    /// The write to standard output or standard error failed.
    Here(io::Error),
}

async fn show(
    output: Option<ChildOutput>,
    mut to: impl AsyncWrite + Unpin,
    mut cleaner: Cleaner,
) -> Result<(), Unshown> {
    let Some(mut output) = output else { return Ok(()) };
    let mut block = vec![0; BLOCK];
    loop {
        let count = output.read(&mut block).await.map_err(|_| Unshown::Cut)?;
        let shown = cleaner.clean(&block[..count]);
        to.write_all(&shown).await.map_err(Unshown::Here)?;
        to.flush().await.map_err(Unshown::Here)?;
        if count == 0 {
            return Ok(());
        }
    }
}

/// Forwards standard input until its end. Returns whether the user detached.
async fn feed(
    stdin: Option<ChildStdin>,
    interactive: bool,
    tty: bool,
    mut escape: Escape,
) -> Result<bool> {
    let Some(mut stdin) = stdin else { return Ok(false) };
    if !interactive {
        if tty {
            // The end of a terminal's input would end a program that reads it.
            std::future::pending::<()>().await;
        }
        return Ok(false);
    }
    let mut input = Input::open()?;
    let mut block = vec![0; BLOCK];
    loop {
        let count = input.read(&mut block).await.context("cannot read standard input")?;
        let written = if tty {
            let keys = escape.feed(&block[..count]);
            if keys.detach {
                return Ok(true);
            }
            stdin.write_all(&keys.send).await
        } else {
            stdin.write_all(&block[..count]).await
        };
        // The command has closed its input, or has ended. Its status tells which.
        if written.is_err() {
            return Ok(false);
        }
        if count == 0 {
            let _ = stdin.write_all(&escape.end()).await;
            let _ = stdin.shutdown().await;
            return Ok(false);
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind).context("cannot listen for signals")
}
