//! A job of this host or of a queue, for the verbs that enter one.

use std::ops::Deref;

use anyhow::{Error, Result};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use metaservice::control::Client;
use metaservice_fleet::name::JobId;
use metaservice_fleet::tunnel::{Portal, PortalError};
use metaservice_sandbox::control::{self, ControlError};

use super::QueueArgs;
use crate::interrupts::leave_at_once;
use crate::output::printer::Printer;
use crate::{hints, jobs};

/// The queue of a verb that also knows the jobs of this host. With --queue, JOB is a job of the
/// queue. METASERVICE_QUEUE alone does not take a name from a job that runs on this host.
#[derive(Debug, Clone)]
pub(crate) struct MaybeQueue {
    args: QueueArgs,
    is_named: bool,
}

impl Args for MaybeQueue {
    fn augment_args(command: Command) -> Command {
        QueueArgs::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        QueueArgs::augment_args_for_update(command)
    }
}

impl FromArgMatches for MaybeQueue {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_named = matches.value_source("queue") == Some(ValueSource::CommandLine);
        Ok(Self { args: QueueArgs::from_arg_matches(matches)?, is_named })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl MaybeQueue {
    /// Whether the command line names a queue.
    pub(crate) fn is_named(&self) -> bool {
        self.is_named
    }

    /// Whether there is a queue: of the command line, or of the environment.
    pub(crate) fn is_given(&self) -> bool {
        self.args.is_given()
    }

    /// The queue.
    pub(crate) fn args(&self) -> &QueueArgs {
        &self.args
    }

    /// Whether this name means a job of the queue: the command line names a queue, or the
    /// environment does and this host has no such job, neither running nor ended.
    pub(crate) async fn has(&self, name: &str) -> bool {
        self.is_named
            || self.is_given()
                && matches!(control::find(name).await, Err(ControlError::NotFound { .. }))
    }

    /// As [`reach`](Self::reach), for a verb that does not wait for signals: one ends the process,
    /// and leaves nothing of the way to the job.
    pub(crate) async fn reach_briefly(&self, name: &str, printer: Printer) -> Result<Reached> {
        if self.is_given() {
            leave_at_once()?;
        }
        self.reach(name, printer).await
    }

    /// A client of a job that runs: of the queue, or of this host.
    pub(crate) async fn reach(&self, name: &str, printer: Printer) -> Result<Reached> {
        if !self.is_given() {
            return jobs::running(name, printer).await.map(Reached::here);
        }
        if !self.is_named
            && let Ok(client) = control::find(name).await
        {
            return Ok(Reached::here(client));
        }
        let id: JobId = name.parse()?;
        let queue = self.args.connect().await?;
        let opening = async {
            let _spinner = printer.spinner(format!("waiting for the worker of {id}"));
            Portal::open(&queue, &id).await
        };
        let portal = opening.await.map_err(|error| match error {
            PortalError::Ended(id) => {
                let hint = format!("`metaservice artifacts {id}` fetches what it left");
                hints::hinted(hint, PortalError::Ended(id).to_string())
            }
            error => Error::new(error),
        })?;
        Ok(Reached { client: Client::new(portal.client_path()), _portal: Some(portal) })
    }
}

/// A client of a job, and the way to it. The client works as long as this value lives.
pub(crate) struct Reached {
    client: Client,
    _portal: Option<Portal>,
}

impl Reached {
    /// A job of this host.
    pub(crate) fn here(client: Client) -> Self {
        Self { client, _portal: None }
    }
}

impl Deref for Reached {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}
