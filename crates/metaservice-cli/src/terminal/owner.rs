//! The standard input of the process that owns a job, while the job runs.

use std::pin::Pin;

use anyhow::{Error, Result};
use metaservice_sandbox::Sandbox;
use serde_json::json;

use crate::foreground;
use crate::output::printer::Printer;
use crate::terminal::stdin::{Fed, UserInput};
use crate::terminal::unread_bytes;

type Feeding = Pin<Box<dyn Future<Output = Result<Fed>>>>;

/// The standard input of this process.
#[derive(Default)]
pub(crate) struct OwnerInput {
    /// What the command gets once it runs.
    user: Option<UserInput>,
    feeding: Option<Feeding>,
    /// Completes when there is data that the command does not get.
    unread: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// What has happened.
pub(crate) enum Happened {
    Fed(Result<Fed>),
    Unread,
}

impl OwnerInput {
    /// Feeds the command, or its terminal.
    pub(crate) fn feeding(user: UserInput) -> Self {
        Self { user: Some(user), ..Self::default() }
    }

    /// Also notices data that the command does not get.
    pub(crate) fn noticing(self) -> Self {
        Self { unread: Some(Box::pin(unread_bytes())), ..self }
    }

    /// The command runs.
    pub(crate) fn begin(&mut self, sandbox: &Sandbox, printer: Printer) {
        let Some(user) = self.user.take() else { return };
        match sandbox.attach() {
            Ok(stdin) => self.feeding = Some(Box::pin(user.feed(stdin))),
            Err(error) => {
                printer.error(&Error::new(error).context("the command gets no standard input"));
            }
        }
    }

    /// The command ends. The terminal is restored.
    pub(crate) fn end(&mut self) {
        (self.user, self.feeding, self.unread) = (None, None, None);
    }

    /// Waits until something happens. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Happened {
        let Self { feeding, unread, .. } = self;
        tokio::select! {
            fed = complete(feeding) => Happened::Fed(fed),
            () = complete(unread) => Happened::Unread,
        }
    }

    /// Handles what has happened. `name` is the name of the job.
    pub(crate) fn handle(&mut self, happened: Happened, name: &str, printer: Printer) {
        match happened {
            Happened::Unread => {
                self.unread = None;
                let text = "standard input has data that the command does not get";
                printer.note(&format!("{text} (-i passes it to the command)"));
            }
            Happened::Fed(fed) => {
                self.feeding = None;
                match fed {
                    Ok(Fed::Over) => {}
                    Ok(Fed::Detached) => leave(name, printer),
                    Err(error) => printer.error(&error),
                }
            }
        }
    }
}

/// Leaves the terminal to the user's shell. The job continues in this process.
fn leave(name: &str, printer: Printer) {
    printer.note(&format!("detached: {name} still runs (metaservice attach {name})"));
    printer.event("detached", json!({ "job": name }));
    if let Err(error) = foreground::leave() {
        printer.error(&Error::new(error).context("cannot leave the terminal"));
    }
}

/// Completes with the future, if there is one.
async fn complete<T>(future: &mut Option<Pin<Box<dyn Future<Output = T>>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
