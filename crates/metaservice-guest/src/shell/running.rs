//! One shell, from its preparation to its end.

use metaservice_protocol::{Failure, FailureCode, Reason};

use super::supervisors::PreparedSupervisor;
use crate::diagnostics::with_causes;
use crate::state::{StateDirectory, StateError};
use crate::supervise::{StartFailure, Supervisor};
use crate::system::processes::ProcessIdentity;

/// How many characters of a command an error shows.
const MAX_SHOWN: usize = 100;

/// The state directory of a shell. Dropping this removes it.
#[derive(Debug)]
pub(super) struct ShellDirectory(pub(super) StateDirectory);

impl Drop for ShellDirectory {
    fn drop(&mut self) {
        self.0.remove();
    }
}

/// A shell that is ready to start. Dropping this cancels it.
#[derive(Debug)]
pub(super) struct PreparedShell<'a> {
    pub(super) supervisor: PreparedSupervisor<'a>,
    pub(super) directory: ShellDirectory,
    pub(super) words: Vec<String>,
}

impl PreparedShell<'_> {
    /// Starts the command.
    pub(super) async fn start(self) -> Result<RunningShell, StartError> {
        let Self { supervisor, directory, words } = self;
        match supervisor.start().await {
            Ok(supervisor) => Ok(RunningShell { supervisor, directory }),
            Err(source) => Err(StartError::Spawn(shortened(&words), source)),
        }
    }
}

/// A command as text, at most [`MAX_SHOWN`] characters of it.
fn shortened(words: &[String]) -> String {
    // A command may have megabytes, so only the beginning is joined.
    let all = words.iter().flat_map(|word| word.chars().chain([' ']));
    // One character more shows whether there is a rest, and one is the blank after the last word.
    let text: String = all.take(MAX_SHOWN + 2).collect();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) if text.len() > end + 1 => format!("{}\u{2026}", &text[..end]),
        _ => text.trim_end_matches(' ').to_owned(),
    }
}

/// A shell's running command. Dropping this kills the command.
#[derive(Debug)]
pub(super) struct RunningShell {
    pub(super) supervisor: Supervisor,
    directory: ShellDirectory,
}

impl RunningShell {
    pub(super) fn state(&self) -> &StateDirectory {
        &self.directory.0
    }

    /// Kills the command, and waits for the end of its supervisor.
    pub(super) async fn end(&self) {
        self.supervisor.end();
        self.supervisor.gone().await;
    }

    /// Waits until the command was started, and returns its main process.
    ///
    /// # Errors
    /// A failure for the host that says why the command did not start.
    pub(super) async fn started(&self) -> Result<ProcessIdentity, Failure> {
        let state = self.state();
        let unseen = |error: StateError| Failure::new(FailureCode::Other, with_causes(&error));
        let watch = state.watch().map_err(unseen)?;
        while !state.has_begun() {
            tokio::select! {
                () = watch.changed() => {}
                // The command has ended already, or did not start. The files say which.
                () = self.supervisor.gone() => break,
            }
        }
        match (StartFailure::read(state), state.main()) {
            (Some(StartFailure { reason, failure }), _) => {
                let not_found = reason == Reason::NotFound;
                let code = if not_found { FailureCode::NotFound } else { FailureCode::Invalid };
                Err(Failure { code, ..failure })
            }
            (None, Some(main)) => Ok(main),
            (None, None) => {
                Err(Failure::new(FailureCode::Other, "the command could not be started"))
            }
        }
    }
}

impl Drop for RunningShell {
    fn drop(&mut self) {
        self.supervisor.end();
    }
}

/// Why a shell was not started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("cannot create its streams")]
    Streams(#[source] std::io::Error),
    #[error("cannot run '{0}'")]
    Spawn(String, #[source] std::io::Error),
    #[error(transparent)]
    State(#[from] StateError),
}

impl StartError {
    pub(super) fn to_failure(&self) -> Failure {
        // If the kernel does not start the command, the command is the cause, as by its length.
        let code = match self {
            Self::Spawn(..) => FailureCode::Invalid,
            Self::Streams(_) | Self::State(_) => FailureCode::Other,
        };
        Failure::new(code, with_causes(self))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_long_command_is_shortened() {
        let shortened = |words: &[&str]| {
            super::shortened(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(shortened(&["echo", "a b"]), "echo a b");
        assert_eq!(shortened(&["x".repeat(100).as_str()]), "x".repeat(100));
        assert_eq!(shortened(&["x".repeat(101).as_str()]), format!("{}\u{2026}", "x".repeat(100)));
        assert_eq!(shortened(&[]), "");
    }
}
