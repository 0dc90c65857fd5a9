//! The secrets of a job that goes to a queue.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use clap::Args;
use metaservice_fleet::name::JobId;
use metaservice_fleet::request::Request;
use metaservice_fleet::sealed::{PublicKey, Secrets};

use super::connection::QUEUE;
use crate::hints;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = QUEUE)]
pub(crate) struct SealArgs {
    /// The public key of the workers, which seals the values of --secret.
    ///
    /// "worker --key FILE" prints it. Get it from there, not over the queue.
    #[arg(long, value_name = "KEY", env = "METASERVICE_QUEUE_KEY")]
    pub(crate) seal_for: Option<PublicKey>,
}

impl SealArgs {
    /// Takes the names of secrets out of the description, and gives the values that they have.
    pub(super) fn take(
        request: &mut Request,
        mut withdrawn: BTreeMap<String, String>,
    ) -> Result<Secrets> {
        let names = std::mem::take(&mut request.spec.secrets);
        let value = |name: String| {
            let value = withdrawn.remove(&name);
            let value =
                value.with_context(|| format!("in --secret: there is no variable {name}"))?;
            Ok((name, value))
        };
        names.into_iter().map(value).collect()
    }

    /// Seals secrets into the request.
    pub(super) fn seal(&self, id: &JobId, request: &mut Request, secrets: &Secrets) -> Result<()> {
        if secrets.is_empty() {
            return Ok(());
        }
        let key = self.seal_for.as_ref().ok_or_else(|| {
            hints::hinted(
                "\"metaservice worker --key FILE\" prints it; give it as --seal-for KEY",
                "--secret needs the public key of the workers",
            )
        })?;
        request.seal(id, secrets, key).context("in --secret")
    }
}
