//! Which module serves which action.

use std::sync::Arc;

use metaservice_protocol::{ActionId, ActionRequest, Exec, Execute, PollAnswer, Signal};
use tokio::sync::watch;

use super::{dial, stats};
use crate::client::body::Body;
use crate::client::error::ClientError;
use crate::client::retry::retry;
use crate::client::{Client, ReplyBody};
use crate::config::Config;
use crate::files::write::Writes;
use crate::files::{artifact, list, list_folder, read};
use crate::job::control::JobControl;
use crate::job::pending_replies::PendingReplies;
use crate::shell::Shells;

/// Serves actions. It gives each module only what that module needs.
#[derive(Debug)]
pub(crate) struct Actions {
    pub(crate) client: Client,
    pub(crate) config: Arc<Config>,
    pub(crate) execute: Arc<Execute>,
    pub(crate) job: JobControl,
    pub(crate) pending_replies: PendingReplies,
    pub(crate) shells: Shells,
    pub(crate) writes: Writes,
}

impl Actions {
    /// Waits for the next action.
    pub(super) async fn poll(&self) -> Result<PollAnswer, ClientError> {
        self.client.poll().await
    }

    /// Serves an action, and repeats that if the connection fails and the action allows it.
    pub(super) async fn serve(
        &self,
        id: &ActionId,
        request: ActionRequest,
        stopping: &watch::Receiver<bool>,
    ) -> Result<(), ClientError> {
        let attempt = || self.serve_once(id, request.clone(), stopping.clone());
        // An action that must not be performed twice repeats only its reply.
        let repeats = request.description().agent_repeats;
        if repeats { retry(stopping.clone(), attempt).await } else { attempt().await }
    }

    async fn serve_once(
        &self,
        id: &ActionId,
        request: ActionRequest,
        stopping: watch::Receiver<bool>,
    ) -> Result<(), ClientError> {
        let client = &self.client;
        let resolve = |path: &str| self.config.resolve(path);
        match request {
            ActionRequest::ExecShell { command, tty } => {
                let exec = Exec { command, tty, ..Exec::default() };
                self.shells.exec(id, exec, stopping).await
            }
            ActionRequest::Exec(exec) if exec.options.detach => {
                self.shells.detach(id, exec, stopping).await
            }
            ActionRequest::Exec(exec) => self.shells.exec(id, exec, stopping).await,
            ActionRequest::GetArtifact { path } => {
                unless(stopping, artifact::serve(client, id, &resolve(&path))).await
            }
            ActionRequest::ListFolder { path } => {
                unless(stopping, list_folder::serve(client, id, &resolve(&path))).await
            }
            ActionRequest::KillProcess => {
                let _pending = self.pending_replies.begin();
                self.job.kill();
                unless(stopping, client.reply(id, ReplyBody::Plain, Body::empty())).await
            }
            ActionRequest::Dial(dial) => unless(stopping, dial::serve(client, id, &dial)).await,
            ActionRequest::Read(read) => {
                let reply = read::serve(client, id, resolve(&read.path), read.options);
                unless(stopping, reply).await
            }
            ActionRequest::Write(write) => {
                let reply = self.writes.serve(client, id, resolve(&write.path), write.options);
                unless(stopping, reply).await
            }
            ActionRequest::List(list) => {
                unless(stopping, list::serve(client, id, &resolve(&list.path), list.options)).await
            }
            ActionRequest::Stats(options) => {
                unless(stopping, stats::serve(client, id, options)).await
            }
            ActionRequest::Attach(_) => match self.job.attach(id, &self.execute) {
                // The supervisor replies.
                Ok(()) => Ok(()),
                Err(failure) => client.reply_failure(id, &failure).await,
            },
            ActionRequest::Start(_) => unless(stopping, self.start(id)).await,
            ActionRequest::Signal(signal) => {
                unless(stopping.clone(), self.signal(id, signal, stopping)).await
            }
        }
    }

    /// Lets the job start its command, and replies when it was started or has ended.
    async fn start(&self, id: &ActionId) -> Result<(), ClientError> {
        let _pending = self.pending_replies.begin();
        self.job.release();
        self.job.begun().await;
        self.client.reply(id, ReplyBody::Plain, Body::empty()).await
    }

    /// Sends a signal once, and repeats the reply until the host has it.
    async fn signal(
        &self,
        id: &ActionId,
        Signal { signal }: Signal,
        stopping: watch::Receiver<bool>,
    ) -> Result<(), ClientError> {
        let client = &self.client;
        let _pending = self.pending_replies.begin();
        match self.job.signal(signal).await {
            Ok(()) => retry(stopping, || client.reply(id, ReplyBody::Plain, Body::empty())).await,
            Err(failure) => client.reply_failure(id, &failure).await,
        }
    }
}

/// Drops the reply when the agent stops. Shells are not served with this: they end their processes
/// first.
async fn unless(
    mut stopping: watch::Receiver<bool>,
    reply: impl Future<Output = Result<(), ClientError>>,
) -> Result<(), ClientError> {
    tokio::select! {
        result = reply => result,
        _ = stopping.wait_for(|stopping| *stopping) => Ok(()),
    }
}
