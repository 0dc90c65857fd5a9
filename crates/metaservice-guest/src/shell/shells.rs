//! The two ways to serve a shell: with a stream, or detached.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use metaservice_protocol::{
    ActionId, Detached, Ending, Exec, Execute, Failure, FailureCode, Reason,
};
use tokio::sync::watch;

use super::background_output::BackgroundOutputs;
use super::relay::{self, Relay};
use super::running::{PreparedShell, RunningShell, ShellDirectory, StartError};
use super::supervisors::Supervisors;
use crate::client::body::Body;
use crate::client::error::ClientError;
use crate::client::retry::retry;
use crate::client::{Client, ReplyBody};
use crate::config::Config;
use crate::diagnostics::{print, with_causes};
use crate::job::control::JobControl;
use crate::job::pending_replies::PendingReplies;
use crate::program::Program;
use crate::state::StateDirectory;
use crate::supervise::{Kind, Order};
use crate::system::account::Account;
use crate::system::streams::{self, AgentStreams, CommandStreams};

/// Serves the shells of one job.
#[derive(Debug)]
pub(crate) struct Shells {
    client: Client,
    config: Arc<Config>,
    execute: Arc<Execute>,
    state: StateDirectory,
    job: JobControl,
    pending_replies: PendingReplies,
    supervisors: Supervisors,
    background_outputs: BackgroundOutputs,
    next_number: AtomicU64,
}

impl Shells {
    pub(crate) fn new(
        client: Client,
        config: Arc<Config>,
        execute: Arc<Execute>,
        state: StateDirectory,
        job: JobControl,
        pending_replies: PendingReplies,
    ) -> Self {
        Self {
            client,
            config,
            execute,
            state,
            job,
            pending_replies,
            supervisors: Supervisors::default(),
            background_outputs: BackgroundOutputs::default(),
            next_number: AtomicU64::new(0),
        }
    }

    /// Serves an exec or exec-shell action. Returns when the shell is over and its supervisor is
    /// gone.
    ///
    /// When `stopping` becomes true, the shell is killed. Dropping the future kills it too, but
    /// does not wait for its end.
    pub(crate) async fn exec(
        &self,
        id: &ActionId,
        exec: Exec,
        stopping: watch::Receiver<bool>,
    ) -> Result<(), ClientError> {
        if let Err(failure) = check_user(&exec) {
            return self.client.reply_failure(id, &failure).await;
        }
        // The supervisor is forked while the connection is set up, and waits for the go-ahead: a
        // command without a connection is not started.
        let (socket, prepared) = match self.supervisors.early() {
            Some(_permit) => {
                let prepared = self.prepare_with_streams(exec);
                (self.client.stream(id).await?, prepared)
            }
            None => (self.client.stream(id).await?, self.prepare_with_streams(exec)),
        };
        if *stopping.borrow() {
            return Ok(());
        }
        let started = match prepared {
            Ok((prepared, streams)) => prepared.start().await.map(|shell| (shell, streams)),
            Err(error) => Err(error),
        };
        match started {
            Ok((shell, streams)) => {
                let relay = Relay {
                    shell: &shell,
                    background_outputs: &self.background_outputs,
                    pending_replies: &self.pending_replies,
                };
                relay.run(socket, streams, stopping).await;
            }
            Err(error) => {
                let reason = with_causes(&error);
                let line = format!("metaservice-guest: cannot start the shell: {reason}\n");
                print(line.trim_end());
                let ending = Ending::new(Reason::NotExecutable).to_header();
                relay::fail(socket, Bytes::from(line), ending.as_bytes()).await;
            }
        }
        Ok(())
    }

    /// Starts a command with `/dev/null` as its streams, replies, and watches it.
    ///
    /// The command is killed when the job ends, or when `stopping` becomes true.
    pub(crate) async fn detach(
        &self,
        id: &ActionId,
        exec: Exec,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<(), ClientError> {
        if self.job.has_ended() {
            let failure = Failure::new(FailureCode::NotRunning, "the job has ended");
            return self.client.reply_failure(id, &failure).await;
        }
        let shell = match self.start_detached(exec).await {
            Ok(shell) => shell,
            Err(failure) => return self.client.reply_failure(id, &failure).await,
        };
        let started = shell.started().await;
        let pending = self.pending_replies.begin();
        let replied = match started {
            Ok(main) => {
                let pid = u32::try_from(main.pid).unwrap_or(0);
                let json = Bytes::from(serde_json::to_vec(&Detached { pid }).unwrap_or_default());
                let reply = || self.client.reply(id, ReplyBody::Json, Body::Whole(json.clone()));
                // Only the reply is repeated. The command is not started again.
                retry(stopping.clone(), reply).await
            }
            Err(failure) => self.client.reply_failure(id, &failure).await,
        };
        drop(pending);
        let stopped = async {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        tokio::select! {
            () = shell.supervisor.gone() => {}
            () = self.job.ended() => shell.end().await,
            () = stopped => shell.end().await,
        }
        replied
    }

    async fn start_detached(&self, exec: Exec) -> Result<RunningShell, Failure> {
        check_user(&exec)?;
        let streams = CommandStreams::null();
        let streams = streams.map_err(|e| Failure::new(FailureCode::Other, with_causes(&e)))?;
        let started = match self.prepare(exec, streams, true) {
            Ok(prepared) => prepared.start().await,
            Err(error) => Err(error),
        };
        started.map_err(|error| error.to_failure())
    }

    /// Prepares a shell, and returns the agent's ends of its streams.
    fn prepare_with_streams(
        &self,
        exec: Exec,
    ) -> Result<(PreparedShell<'_>, AgentStreams), StartError> {
        // The start of the command reports an unknown user.
        let name = exec.options.user.as_ref().or(self.config.user.as_ref());
        let user = name.and_then(|user| Account::find(user).ok());
        let created = if exec.tty {
            streams::terminal(user.as_ref(), exec.options.size).map(|(input, screen, command)| {
                (AgentStreams { stdin: Some(input), stdout: Some(screen), stderr: None }, command)
            })
        } else {
            streams::pipes(user.as_ref())
        };
        let (agent, command) = created.map_err(StartError::Streams)?;
        Ok((self.prepare(exec, command, false)?, agent))
    }

    fn prepare(
        &self,
        exec: Exec,
        streams: CommandStreams,
        reports_start: bool,
    ) -> Result<PreparedShell<'_>, StartError> {
        let tty = exec.tty && !exec.options.detach;
        let program = Program::shell(&self.config, &self.execute, exec);
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let directory = ShellDirectory(self.state.create_shell(number)?);
        let order = Order { reports_start, ..Order::new(&directory.0, Kind::Shell, tty, &program) };
        let Program { words, env, .. } = program;
        let supervisor = self.supervisors.prepare(order, env, streams);
        Ok(PreparedShell { supervisor, directory, words })
    }
}

/// Checks the user, before anything is started.
fn check_user(exec: &Exec) -> Result<(), Failure> {
    let Some(user) = &exec.options.user else { return Ok(()) };
    match Account::find(user) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(FailureCode::NotFound, with_causes(&error))),
    }
}
