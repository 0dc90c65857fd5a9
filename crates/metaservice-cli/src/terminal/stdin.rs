//! The user's standard input and terminal, for the command of a job.
//!
//! With a terminal, every key goes to the guest, Ctrl-C included. Only the detach keys do not. The
//! terminal is restored when the feeding ends, for whatever reason.

use std::pin::pin;

use anyhow::{Context, Error, Result};
use bytes::{Buf, Bytes};
use metaservice::JobStdin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::output::printer::Hint;
use crate::terminal::{Escape, Input, Raw, Terminal};

/// How many bytes of standard input are read at once.
const BLOCK: usize = 64 * 1024;

/// The signal of a terminal whose size has changed.
const SIGWINCH: u8 = 28;

/// What of this process the command gets.
pub(crate) struct UserInput {
    /// Whether the command gets standard input.
    interactive: bool,
    /// The user's terminal, if the command has one too.
    terminal: Option<Terminal>,
    /// The keys that detach.
    escape: Option<Escape>,
    /// Whether a program that runs already is asked to draw its screen again.
    redraw: bool,
}

/// Why the feeding has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fed {
    /// The user typed the detach keys.
    Detached,
    /// The command wants no more.
    Over,
}

impl UserInput {
    /// For a command that this process starts. With both, standard input must be a terminal.
    pub(crate) fn of_run(interactive: bool, tty: bool, escape: Option<Escape>) -> Result<Self> {
        let terminal = match (interactive, tty) {
            (_, false) => None,
            (false, true) => Terminal::of_output()?,
            (true, true) => Some(Terminal::of_stdin()?.ok_or_else(|| {
                let hint = "leave out -t to send standard input as it is";
                Error::new(Hint(hint.to_owned()))
                    .context("-t with -i needs a terminal, and standard input is not one")
            })?),
        };
        Ok(Self { interactive, terminal, escape, redraw: false })
    }

    /// For a command that runs already.
    pub(crate) fn of_attach(interactive: bool, tty: bool, escape: Escape) -> Result<Self> {
        let terminal = match (interactive, tty) {
            (_, false) => None,
            (false, true) => Terminal::of_output()?,
            (true, true) => Terminal::of_stdin()?,
        };
        Ok(Self { interactive, terminal, escape: Some(escape), redraw: true })
    }

    /// Whether every key goes to the command.
    pub(crate) fn takes_keys(&self) -> bool {
        self.interactive && self.terminal.is_some()
    }

    /// Feeds the command until it wants no more or the user detaches.
    ///
    /// # Errors
    /// If standard input cannot be read, or its bytes cannot be delivered.
    pub(crate) async fn feed(self, mut stdin: JobStdin) -> Result<Fed> {
        let interactive = self.interactive;
        let mut feeding = Feeding::begin(self, &stdin)?;
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let mut resized = listen(SignalKind::window_change())?;
        let continued = SignalKind::from_raw(rustix::process::Signal::CONT.as_raw());
        let mut continued = listen(continued)?;
        let mut closed = pin!(stdin.closed());
        loop {
            let writes = !feeding.pending.is_empty();
            tokio::select! {
                biased;
                closed = &mut closed => {
                    let closed = closed.context("standard input does not reach the command");
                    // An older agent does not follow the size of the terminal. That is all.
                    return closed.map(|()| Fed::Over).or_else(|error| match interactive {
                        true => Err(error),
                        false => Ok(Fed::Over),
                    });
                }
                _ = resized.recv() => feeding.follow(&stdin),
                _ = continued.recv() => {
                    // After a stop, the shell has changed the terminal's settings.
                    if let Some(raw) = &feeding.raw {
                        raw.apply().context("cannot change the terminal's settings")?;
                    }
                    feeding.follow(&stdin);
                }
                written = stdin.write(&feeding.pending), if writes => match written {
                    Ok(count) => feeding.pending.advance(count),
                    // `closed` says why.
                    Err(_) => feeding.stop(),
                },
                count = read(&mut feeding.input, &mut feeding.block), if !writes => {
                    let count = count.context("cannot read standard input")?;
                    if feeding.take(count) {
                        let _ = stdin.write_all(&feeding.pending).await;
                        return Ok(Fed::Detached);
                    }
                    if count == 0 {
                        feeding.end(&mut stdin).await;
                    }
                }
            }
        }
    }
}

/// The state of feeding. Dropping it restores the terminal.
struct Feeding {
    /// `None` at its end, or for a command without input.
    input: Option<Input>,
    terminal: Option<Terminal>,
    escape: Option<Escape>,
    raw: Option<Raw>,
    block: Vec<u8>,
    /// Bytes for the command that are not accepted yet.
    pending: Bytes,
}

impl Feeding {
    fn begin(with: UserInput, stdin: &JobStdin) -> Result<Self> {
        let takes_keys = with.takes_keys();
        let UserInput { interactive, terminal, escape, redraw } = with;
        let raw = terminal.as_ref().filter(|_| takes_keys).map(Terminal::make_raw).transpose()?;
        let feeding = Self {
            input: interactive.then(Input::open).transpose()?,
            escape: escape.filter(|_| takes_keys),
            terminal,
            raw,
            block: vec![0; BLOCK],
            pending: Bytes::new(),
        };
        feeding.follow(stdin);
        if redraw && takes_keys {
            // The size may be the same as before, and then the guest sends no signal itself.
            stdin.signal(SIGWINCH);
        }
        Ok(feeding)
    }

    /// Gives the command's terminal the size of the user's.
    fn follow(&self, stdin: &JobStdin) {
        if let Some(size) = self.terminal.as_ref().and_then(Terminal::size) {
            stdin.set_size(size);
        }
    }

    /// Takes bytes that were read. Returns whether the user detaches.
    fn take(&mut self, count: usize) -> bool {
        let bytes = &self.block[..count];
        let Some(escape) = &mut self.escape else {
            self.pending = Bytes::copy_from_slice(bytes);
            return false;
        };
        let keys = escape.feed(bytes);
        self.pending = keys.send.into();
        keys.detach
    }

    /// Standard input has ended. If a terminal is gone, the stdin of the command does not end.
    async fn end(&mut self, stdin: &mut JobStdin) {
        if self.raw.is_none() {
            let _ = stdin.shutdown().await;
        }
        self.stop();
    }

    fn stop(&mut self) {
        self.input = None;
        self.pending.clear();
    }
}

/// Reads some bytes. Never completes without an input. Cancel-safe.
async fn read(input: &mut Option<Input>, block: &mut [u8]) -> std::io::Result<usize> {
    match input {
        Some(input) => input.read(block).await,
        None => std::future::pending().await,
    }
}
