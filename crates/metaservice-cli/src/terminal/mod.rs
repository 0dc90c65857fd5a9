//! The user's terminal while a command of the guest's has it.
//!
//! Two things must never happen: that the terminal stays raw after us, and that a read of ours
//! takes what the user types for the next program. So the settings are put back by a guard that
//! also a panic drops, and the terminal is read through a file description of our own that does
//! not block: a read that nobody waits for any longer takes nothing.

pub(crate) mod attachment;
mod escape;
mod input;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use metaservice::TerminalSize;
use rustix::fs::{Mode, OFlags};
use rustix::termios::{self, OptionalActions, OutputModes, Termios};

pub(crate) use self::escape::Escape;
pub(crate) use self::input::Input;
use metaservice_sandbox::exit::CleanUp;

/// What a command gets for a terminal where we have none.
pub(crate) const USUAL_SIZE: TerminalSize = TerminalSize { columns: 80, rows: 24 };

/// The terminal that a command in a guest gets.
pub(crate) struct Terminal {
    tty: OwnedFd,
    settings: Termios,
}

impl Terminal {
    /// The terminal at standard input, as it is; `None` where that is no terminal.
    pub(crate) fn of_stdin() -> Result<Option<Self>> {
        Self::at(std::io::stdin())
    }

    /// The terminal that shows what the command writes, for a command that gets no input.
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

    /// Every key goes to the command, none has a meaning here; until the guard is dropped.
    pub(crate) fn make_raw(&self) -> Result<Raw> {
        let mut raw = self.settings.clone();
        raw.make_raw();
        self.change(raw)
    }

    /// What is written is shown as it is: the guest's terminal has made line ends of it already.
    /// Keys keep their meaning. Until the guard is dropped.
    pub(crate) fn make_output_raw(&self) -> Result<Raw> {
        let mut raw = self.settings.clone();
        raw.output_modes.remove(OutputModes::OPOST);
        self.change(raw)
    }

    fn change(&self, raw: Termios) -> Result<Raw> {
        let (tty, settings) = (self.tty.try_clone()?, self.settings.clone());
        let restore = CleanUp::new(move || {
            // Not after what is still to be shown: a terminal that nobody reads would wait for ever.
            let _ = termios::tcsetattr(&tty, OptionalActions::Now, &settings);
        });
        let guard = Raw { tty: self.tty.try_clone()?, raw, _restore: restore };
        guard.apply().context("cannot change the terminal's settings")?;
        Ok(guard)
    }

    /// How large it is now.
    pub(crate) fn size(&self) -> Option<TerminalSize> {
        size_of(&self.tty)
    }
}

/// Tells a command the type of the terminal here, unless it is told another one already.
pub(crate) fn tell_type(env: &mut BTreeMap<String, String>) {
    if let Some(term) = std::env::var("TERM").ok().filter(|term| !term.is_empty()) {
        env.entry("TERM".to_owned()).or_insert(term);
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
    raw: Termios,
    _restore: CleanUp,
}

impl Raw {
    /// Makes the terminal raw, again after somebody else had it.
    pub(crate) fn apply(&self) -> rustix::io::Result<()> {
        termios::tcsetattr(&self.tty, OptionalActions::Drain, &self.raw)
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
