//! A shell whose processes are there before its command is known.
//!
//! Owns one at most, and the question whom it fits. To start a supervisor, a launcher and a
//! command one after the other takes most of the time of a short command; of these only the last has
//! to wait for the host. So after a shell has ended, the next one's supervisor and launcher are
//! started, and a command without a terminal and without a user of its own is told to them through
//! a FIFO. All others are started as ever. A reserve dies with its agent as any shell does.

use std::fs::File;
use std::io::Write;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use metaservice_protocol::Exec;

use super::terminal::{self, Ends};
use super::{Running, StartError, supervised};
use crate::account::Account;
use crate::agent::Service;
use crate::program::Program;
use crate::supervise::{Kind, Late, Order};

/// The shell that waits for a command, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Reserve(Mutex<Option<Prepared>>);

#[derive(Debug)]
struct Prepared {
    running: Running,
    ends: Ends,
    late: File,
}

impl Reserve {
    /// Starts one, unless there is one. A failure is no one's: the next shell is started as ever.
    pub(super) fn refill(&self, service: &Service) {
        let mut reserve = self.lock();
        if reserve.is_none() {
            *reserve = Prepared::start(service).ok();
        }
    }

    /// Gives a command to it; gives the command back where that does not fit.
    pub(super) fn give(&self, service: &Service, exec: Exec) -> Result<(Running, Ends), Exec> {
        if exec.tty || exec.options.user.is_some() {
            return Err(exec);
        }
        let Some(mut prepared) = self.lock().take() else { return Err(exec) };
        let program = Program::shell(&service.config, &service.execute, exec.clone());
        let Program { words: command, env, workdir, .. } = program;
        let Some(bytes) = (Late { command, env, workdir }).encode() else { return Err(exec) };
        // Killed by somebody meanwhile.
        if prepared.running.supervisor.is_gone() || prepared.late.write_all(&bytes).is_err() {
            return Err(exec);
        }
        prepared.running.told = Some(Instant::now());
        // The FIFO ends behind the command, for a launcher that is only now opening it too: it is
        // kept open by the shell.
        prepared.running.late = Some(prepared.late);
        Ok((prepared.running, prepared.ends))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Prepared>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prepared {
    fn start(service: &Service) -> Result<Self, StartError> {
        let user = service.config.user.as_ref().and_then(|user| Account::find(user).ok());
        let (ends, streams) = terminal::pipes(user.as_ref()).map_err(StartError::Streams)?;
        let streams: [Stdio; 3] = streams.into_stdio();
        let program = Program {
            words: Vec::new(),
            env: Vec::new(),
            user: service.config.user.clone(),
            workdir: None,
        };
        let folder = service.folder.shell(service.next_number())?;
        let late = match folder.make_late() {
            Ok(late) => late,
            Err(error) => {
                folder.remove();
                return Err(error.into());
            }
        };
        let order = Order { prepared: true, ..Order::new(&folder, Kind::Shell, false, &program) };
        let running = supervised(folder, &order, &program.env, streams)?;
        Ok(Self { running, ends, late })
    }
}
