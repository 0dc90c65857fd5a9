//! Jobs by their names, for the verbs.

use anyhow::Result;
use metaservice::control::Client;
use metaservice_sandbox::control::{self, ControlError};

use crate::hints;
use crate::output::printer::Printer;

/// A client of a job that runs. One that starts just now is awaited for some seconds, so that this
/// works after `metaservice run &`.
pub(crate) async fn running(name: &str, printer: Printer) -> Result<Client> {
    let found = match control::find(name).await {
        Err(ControlError::NotFound { .. } | ControlError::Ended { .. }) => {
            let _spinner = printer.spinner(format!("waiting for a job named {name}"));
            control::find_starting(name).await
        }
        found => found,
    };
    found.map_err(hints::control)
}
