//! The user's terminal while a command of the guest's has it.
//!
//! Two things must never happen: that the terminal stays raw after us, and that a read of ours
//! takes what the user types for the next program. So the settings are put back by a guard that
//! also a panic drops, and the terminal is read through a file description of our own that does
//! not block: a read that nobody waits for any longer takes nothing.

mod escape;
mod input;

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use metaservice::TerminalSize;
use rustix::fs::{Mode, OFlags};
use rustix::termios::{self, OptionalActions, Termios};

pub(crate) use self::escape::Escape;
pub(crate) use self::input::Input;
use crate::printer::Hint;

/// What a command gets for a terminal where we have none.
pub(crate) const USUAL_SIZE: TerminalSize = TerminalSize { columns: 80, rows: 24 };

/// The terminal at our stdin.
pub(crate) struct Terminal {
    tty: OwnedFd,
    settings: Termios,
}

impl Terminal {
    /// The terminal at our stdin, as it is.
    ///
    /// # Errors
    /// When stdin is none.
    pub(crate) fn open() -> Result<Self> {
        let stdin = std::io::stdin();
        if !termios::isatty(&stdin) {
            let hint = Hint("leave -t out to send what stdin has".into());
            let error = anyhow::Error::new(hint);
            return Err(error.context("-t needs a terminal, and standard input is none"));
        }
        let tty = reopen(&stdin).context("cannot open the terminal")?;
        let settings = termios::tcgetattr(&tty).context("cannot read the terminal's settings")?;
        Ok(Self { tty, settings })
    }

    /// Every key goes to whoever reads, none has a meaning here; until the guard is dropped.
    pub(crate) fn make_raw(&self) -> Result<Raw> {
        let guard = Raw { tty: self.tty.try_clone()?, settings: self.settings.clone() };
        guard.apply().context("cannot change the terminal's settings")?;
        Ok(guard)
    }

    /// How large it is now.
    pub(crate) fn size(&self) -> Option<TerminalSize> {
        size_of(&self.tty)
    }
}

/// The size of the terminal at our stdin or, failing that, stdout.
pub(crate) fn size() -> Option<TerminalSize> {
    size_of(std::io::stdin()).or_else(|| size_of(std::io::stdout()))
}

fn size_of(tty: impl std::os::fd::AsFd) -> Option<TerminalSize> {
    let size = termios::tcgetwinsize(tty).ok()?;
    // A terminal that was never told its size has none.
    let told = size.ws_col > 0 && size.ws_row > 0;
    told.then_some(TerminalSize { columns: size.ws_col, rows: size.ws_row })
}

/// A raw terminal; as it was before once this is dropped.
pub(crate) struct Raw {
    tty: OwnedFd,
    settings: Termios,
}

impl Raw {
    /// Makes the terminal raw, again after somebody else had it.
    pub(crate) fn apply(&self) -> rustix::io::Result<()> {
        let mut raw = self.settings.clone();
        raw.make_raw();
        termios::tcsetattr(&self.tty, OptionalActions::Drain, &raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Not after what is still to be shown: a terminal that nobody reads would hold us up.
        let _ = termios::tcsetattr(&self.tty, OptionalActions::Now, &self.settings);
    }
}

/// The terminal `tty` by a description of our own, which does not block. The flag
/// belongs to the description: on stdin's own it would reach the shell that we share it with.
fn reopen(tty: impl std::os::fd::AsFd) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let named = termios::ttyname(tty, Vec::new()).ok();
    // In a container the name may lead elsewhere; the controlling terminal has one for all.
    for name in named.as_deref().into_iter().chain([c"/dev/tty"]) {
        if let Ok(tty) = rustix::fs::open(name, flags, Mode::empty()) {
            return Ok(tty);
        }
    }
    bail!("neither by its name nor as /dev/tty");
}
