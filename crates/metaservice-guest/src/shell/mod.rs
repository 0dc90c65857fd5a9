//! exec-shell: a command whose streams are a websocket.
//!
//! Owns one shell from the dialling to the close. Its command runs under a supervisor of its
//! own, like the job, so that an abort, a connection that dies or the agent's own end take
//! down its whole tree; a shell that ends by itself leaves its background processes alone.
//!
//! The exit is said when the command itself has ended and what it wrote before has been sent;
//! a background process that still holds the output open is not waited for.

mod pump;
mod terminal;

use bytes::Bytes;
use metaservice_protocol::ActionId;
use tokio::sync::watch;

use crate::account::Account;
use crate::agent::Service;
use crate::client::ClientError;
use crate::program::Program;
use crate::state::Folder;
use crate::supervise::{self, Kind, Order, Supervisor};
use crate::words::{chain, say};

use self::terminal::Ends;

/// A shell's command, running. Dropping it kills the command and removes the shell's folder.
#[derive(Debug)]
struct Running {
    supervisor: Supervisor,
    folder: Folder,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.supervisor.end();
        self.folder.remove();
    }
}

/// Answers an exec-shell action; returns when the shell is over and its processes are gone.
/// When `stopping` becomes true, the shell is killed. Dropping the future kills it too, but
/// does not wait for that.
pub(crate) async fn serve(
    service: &Service,
    id: &ActionId,
    words: Vec<String>,
    tty: bool,
    stopping: watch::Receiver<bool>,
) -> Result<(), ClientError> {
    // The host first: a command that nobody would hear is not started.
    let socket = service.client.shell(id).await?;
    let program = Program::shell(&service.config, &service.execute, words, tty);
    match start(service, &program, tty) {
        Ok((running, ends)) => pump::run(socket, &running, ends, stopping).await,
        Err(error) => {
            let line = format!("metaservice-guest: cannot start the shell: {}\n", chain(&error));
            say(line.trim_end());
            pump::refuse(socket, Bytes::from(line)).await;
        }
    }
    Ok(())
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

fn start(service: &Service, program: &Program, tty: bool) -> Result<(Running, Ends), StartError> {
    // A user who does not exist is reported by the launcher.
    let user = program.user.as_deref().and_then(|user| Account::find(user).ok());
    let made = if tty { terminal::terminal(user.as_ref()) } else { terminal::pipes(user.as_ref()) };
    let (ends, streams) = made.map_err(StartError::Streams)?;
    let folder = service.folder.shell(service.next_number())?;
    let order = Order::new(&folder, Kind::Shell, tty, program);
    let mut command = supervise::command(&order, &program.env);
    let [stdin, stdout, stderr] = streams.into_stdio();
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    let spawned = Supervisor::spawn(&mut command);
    match spawned {
        Ok(supervisor) => Ok((Running { supervisor, folder }, ends)),
        Err(source) => {
            folder.remove();
            Err(StartError::Spawn(program.words.join(" "), source))
        }
    }
}
