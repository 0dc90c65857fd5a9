//! exec-shell and exec: a command whose streams are a websocket.
//!
//! Owns one shell from the dialling to the close. Its command runs under a supervisor of its
//! own, like the job, so that an abort, a connection that dies or the agent's own end take
//! down its whole tree; a shell that ends by itself leaves its background processes alone.
//!
//! The exit is said when the command itself has ended and what it wrote before has been sent;
//! a background process that still holds the output open is not waited for. It may go on writing,
//! to nobody.

mod background_output;
mod relay;
mod supervisors;

use bytes::Bytes;
use metaservice_protocol::{ActionId, Detached, Ending, Exec, Failure, FailureCode, Reason};
use tokio::sync::watch;

use crate::actions;
use crate::agent::Service;
use crate::client::body::Body;
use crate::client::{ClientError, ReplyBody};
use crate::diagnostics::{chain, say};
use crate::program::Program;
use crate::state::{Claim, Folder, StateError};
use crate::supervise::{Kind, Order, StartFailure, Supervisor};
use crate::system::account::Account;

pub(crate) use self::background_output::Leftovers;
use self::supervisors::Coming;
pub(crate) use self::supervisors::Nursery;
use crate::system::streams::{self, Ends, Streams};

/// The folder of a shell, removed with this.
#[derive(Debug)]
struct ShellFolder(Folder);

impl Drop for ShellFolder {
    fn drop(&mut self) {
        self.0.remove();
    }
}

/// A shell that can be started. Dropping it gives it up.
#[derive(Debug)]
struct Prepared<'a> {
    coming: Coming<'a>,
    folder: ShellFolder,
    words: Vec<String>,
}

impl Prepared<'_> {
    /// Starts its command.
    async fn start(self) -> Result<Running, StartError> {
        let Self { coming, folder, words } = self;
        match coming.wanted().await {
            Ok(supervisor) => Ok(Running { supervisor, folder }),
            Err(source) => Err(StartError::Spawn(shown(&words), source)),
        }
    }
}

/// A command for people: its beginning.
fn shown(words: &[String]) -> String {
    const MOST: usize = 100;
    // No more than this is put together: a command may have megabytes.
    let all = words.iter().flat_map(|word| word.chars().chain([' ']));
    // With one blank behind the last word.
    let text: String = all.take(MOST + 2).collect();
    match text.char_indices().nth(MOST) {
        Some((end, _)) if text.len() > end + 1 => format!("{}\u{2026}", &text[..end]),
        _ => text.trim_end_matches(' ').to_owned(),
    }
}

/// A shell's command, running. Dropping it kills the command.
#[derive(Debug)]
struct Running {
    supervisor: Supervisor,
    folder: ShellFolder,
}

impl Running {
    fn folder(&self) -> &Folder {
        &self.folder.0
    }

    /// The command's main process, once it is the command; else why it is not.
    async fn begun(&self) -> Result<Claim, Failure> {
        let folder = self.folder();
        let unseen = |error: StateError| Failure::new(FailureCode::Other, chain(&error));
        let watch = folder.watch().map_err(unseen)?;
        while !folder.has_begun() {
            tokio::select! {
                () = watch.changed() => {}
                // It may have ended by now: then it has begun, or has said why not.
                () = self.supervisor.gone() => break,
            }
        }
        match (StartFailure::of(folder), folder.main()) {
            (Some(StartFailure { reason, message }), _) => {
                let not_found = reason == Reason::NotFound;
                let code = if not_found { FailureCode::NotFound } else { FailureCode::Invalid };
                Err(Failure::new(code, message))
            }
            (None, Some(main)) => Ok(main),
            (None, None) => {
                Err(Failure::new(FailureCode::Other, "the command could not be started"))
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.supervisor.end();
    }
}

/// Answers an exec or exec-shell action; returns when the shell is over and its processes are
/// gone. When `stopping` becomes true, the shell is killed. Dropping the future kills it too,
/// but does not wait for that.
pub(crate) async fn serve(
    service: &Service,
    id: &ActionId,
    exec: Exec,
    stopping: watch::Receiver<bool>,
) -> Result<(), ClientError> {
    if let Err(failure) = check(&exec) {
        return service.client.refuse(id, &failure).await;
    }
    // A command that nobody would hear is not started, but its supervisor comes meanwhile.
    let ((socket, protocol), prepared) = match service.nursery.room() {
        Some(_room) => {
            let prepared = prepare_with_streams(service, exec);
            (service.client.stream(id).await?, prepared)
        }
        None => (service.client.stream(id).await?, prepare_with_streams(service, exec)),
    };
    if *stopping.borrow() {
        return Ok(());
    }
    let started = match prepared {
        Ok((prepared, ends)) => prepared.start().await.map(|running| (running, ends)),
        Err(error) => Err(error),
    };
    match started {
        Ok((running, ends)) => {
            let Service { leftovers, partings, .. } = service;
            relay::run(socket, protocol, &running, ends, (leftovers, partings), stopping).await;
        }
        Err(error) => {
            let line = format!("metaservice-guest: cannot start the shell: {}\n", chain(&error));
            say(line.trim_end());
            let ending = Ending::new(Reason::NotExecutable).to_header();
            relay::refuse(socket, protocol, Bytes::from(line), ending.as_bytes()).await;
        }
    }
    Ok(())
}

/// Starts a command and leaves it alone: its streams are `/dev/null`. It is killed when the job
/// is over, or when `stopping` becomes true, which is the agent's end.
pub(crate) async fn detach(
    service: &Service,
    id: &ActionId,
    exec: Exec,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), ClientError> {
    if service.running.has_ended() {
        let failure = Failure::new(FailureCode::NotRunning, "the job has ended");
        return service.client.refuse(id, &failure).await;
    }
    let started = match (check(&exec), Streams::null()) {
        (Err(failure), _) => Err(failure),
        (Ok(()), Err(error)) => Err(Failure::new(FailureCode::Other, chain(&error))),
        (Ok(()), Ok(streams)) => {
            let started = match prepare(service, exec, streams, true) {
                Ok(prepared) => prepared.start().await,
                Err(error) => Err(error),
            };
            started.map_err(|error| error.failure())
        }
    };
    let running = match started {
        Ok(running) => running,
        Err(failure) => return service.client.refuse(id, &failure).await,
    };
    let begun = running.begun().await;
    let parting = service.partings.begin();
    let answered = match begun {
        Ok(main) => {
            let pid = u32::try_from(main.pid).unwrap_or(0);
            let json = Bytes::from(serde_json::to_vec(&Detached { pid }).unwrap_or_default());
            let reply = || service.client.reply(id, ReplyBody::Json, Body::Whole(json.clone()));
            // The host may not have seen it begin. The command is not started again.
            actions::insist(stopping.clone(), reply).await
        }
        Err(failure) => service.client.refuse(id, &failure).await,
    };
    drop(parting);
    let stopped = async {
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    tokio::select! {
        () = running.supervisor.gone() => {}
        () = service.running.over() => {
            running.supervisor.end();
            running.supervisor.gone().await;
        }
        () = stopped => {
            running.supervisor.end();
            running.supervisor.gone().await;
        }
    }
    answered
}

/// What can be known to fail before anything is started.
fn check(exec: &Exec) -> Result<(), Failure> {
    let Some(user) = &exec.options.user else { return Ok(()) };
    match Account::find(user) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(FailureCode::NotFound, chain(&error))),
    }
}

/// A shell that could not be started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("it has no streams")]
    Streams(#[source] std::io::Error),
    #[error("cannot run '{0}'")]
    Spawn(String, #[source] std::io::Error),
    #[error(transparent)]
    State(#[from] crate::state::StateError),
}

impl StartError {
    fn failure(&self) -> Failure {
        // What the kernel does not start is the command's fault, as its length.
        let code = match self {
            Self::Spawn(..) => FailureCode::Invalid,
            Self::Streams(_) | Self::State(_) => FailureCode::Other,
        };
        Failure::new(code, chain(self))
    }
}

/// A shell with streams of its own, whose other ends these are.
fn prepare_with_streams(service: &Service, exec: Exec) -> Result<(Prepared<'_>, Ends), StartError> {
    // A user who does not exist is reported by the command's start.
    let name = exec.options.user.as_ref().or(service.config.user.as_ref());
    let user = name.and_then(|user| Account::find(user).ok());
    let made = if exec.tty {
        streams::terminal(user.as_ref(), exec.options.size)
    } else {
        streams::pipes(user.as_ref())
    };
    let (ends, streams) = made.map_err(StartError::Streams)?;
    Ok((prepare(service, exec, streams, false)?, ends))
}

fn prepare(
    service: &Service,
    exec: Exec,
    streams: Streams,
    awaited: bool,
) -> Result<Prepared<'_>, StartError> {
    let tty = exec.tty && !exec.options.detach;
    let program = Program::shell(&service.config, &service.execute, exec);
    let folder = ShellFolder(service.folder.shell(service.next_number())?);
    let order = Order { awaited, ..Order::new(&folder.0, Kind::Shell, tty, &program) };
    let Program { words, env, .. } = program;
    let coming = service.nursery.expect(order, env, streams);
    Ok(Prepared { coming, folder, words })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_long_command_is_shown_by_its_beginning() {
        let shown = |words: &[&str]| {
            super::shown(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(shown(&["echo", "a b"]), "echo a b");
        assert_eq!(shown(&["x".repeat(100).as_str()]), "x".repeat(100));
        assert_eq!(shown(&["x".repeat(101).as_str()]), format!("{}\u{2026}", "x".repeat(100)));
        assert_eq!(shown(&[]), "");
    }
}
