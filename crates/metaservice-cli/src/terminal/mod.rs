//! The user's terminal while a command in the guest uses it.
//!
//! Two things must never happen: the terminal stays raw after this process, or a read of this
//! process takes input that the user types for the next program. So a guard restores the settings,
//! also after a panic. The terminal is read through a separate file description that does not
//! block: an abandoned read takes nothing.

pub(crate) mod attachment;
mod escape;
mod input;
pub(crate) mod owner;
pub(crate) mod stdin;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use metaservice::TerminalSize;
use rustix::termios::{self, OptionalActions, OutputModes, Termios};

pub(crate) use self::escape::Escape;
use self::input::reopen;
pub(crate) use self::input::{Input, unread_bytes};
use crate::output::stderr;
use metaservice_sandbox::exit::CleanUp;

/// The size of a terminal if this process has none.
pub(crate) const USUAL_SIZE: TerminalSize = TerminalSize { columns: 80, rows: 24 };

/// The terminal of a command in the guest.
pub(crate) struct Terminal {
    tty: OwnedFd,
    settings: Termios,
}

impl Terminal {
    /// The terminal at standard input, or `None`.
    pub(crate) fn of_stdin() -> Result<Option<Self>> {
        Self::at(std::io::stdin())
    }

    /// The terminal at standard output, for a command without input.
    pub(crate) fn of_output() -> Result<Option<Self>> {
        Self::at(std::io::stdout())
    }

    fn at(stream: impl std::os::fd::AsFd) -> Result<Option<Self>> {
        if !termios::isatty(&stream) {
            return Ok(None);
        }
        let tty = reopen(&stream).context("cannot open the terminal")?;
        let settings = termios::tcgetattr(&tty).context("cannot read the terminal's settings")?;
        Ok(Some(Self { tty, settings }))
    }

    /// Passes every key to the command, until the guard is dropped.
    pub(crate) fn make_raw(&self) -> Result<Raw> {
        let mut raw = self.settings.clone();
        raw.make_raw();
        self.change(raw)
    }

    /// Shows output unchanged, until the guard is dropped: the terminal of the guest has already
    /// converted line ends. Keys keep their meaning.
    pub(crate) fn make_output_raw(&self) -> Result<Raw> {
        let mut raw = self.settings.clone();
        raw.output_modes.remove(OutputModes::OPOST);
        self.change(raw)
    }

    fn change(&self, raw: Termios) -> Result<Raw> {
        let (tty, settings) = (self.tty.try_clone()?, self.settings.clone());
        let restore = CleanUp::new(move || {
            // Not after pending output: without a reader of the terminal, that would wait for ever.
            let _ = termios::tcsetattr(&tty, OptionalActions::Now, &settings);
        });
        let lines = stderr::RawLines::begin(!raw.output_modes.contains(OutputModes::OPOST));
        let guard = Raw { tty: self.tty.try_clone()?, raw, _restore: restore, _lines: lines };
        guard.apply().context("cannot change the terminal's settings")?;
        Ok(guard)
    }

    /// The current size.
    pub(crate) fn size(&self) -> Option<TerminalSize> {
        size_of(&self.tty)
    }
}

/// Passes the type of the terminal to a command, unless `TERM` is set already.
pub(crate) fn tell_type(env: &mut BTreeMap<String, String>) {
    if let Some(term) = std::env::var("TERM").ok().filter(|term| !term.is_empty()) {
        env.entry("TERM".to_owned()).or_insert(term);
    }
}

/// The size of the terminal at stdin, or else at stdout.
pub(crate) fn size() -> Option<TerminalSize> {
    size_of(std::io::stdin()).or_else(|| size_of(std::io::stdout()))
}

fn size_of(tty: impl std::os::fd::AsFd) -> Option<TerminalSize> {
    let size = termios::tcgetwinsize(tty).ok()?;
    // Zero means unknown.
    let known = size.ws_col > 0 && size.ws_row > 0;
    known.then_some(TerminalSize { columns: size.ws_col, rows: size.ws_row })
}

/// A raw terminal. Dropping this restores it.
pub(crate) struct Raw {
    tty: OwnedFd,
    raw: Termios,
    _restore: CleanUp,
    _lines: stderr::RawLines,
}

impl Raw {
    /// Makes the terminal raw, also again after another process changed it.
    pub(crate) fn apply(&self) -> rustix::io::Result<()> {
        termios::tcsetattr(&self.tty, OptionalActions::Drain, &self.raw)
    }
}
