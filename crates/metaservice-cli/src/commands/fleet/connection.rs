//! Which queue a verb uses.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Error, Result};
use clap::Args;
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::{Cause, ConnectError, LEFT_AFTER, Queue, Settings};
use metaservice_fleet::state::{JobState, Phase};

use crate::{hints, local_queue};

/// The heading of the options in the help.
pub(super) const QUEUE: &str = "Queue options";

/// The word that names the queue of this host.
const LOCAL: &str = "local";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = QUEUE)]
pub(crate) struct QueueArgs {
    /// The servers of the queue: nats://HOST:PORT, with commas between several, or "local".
    ///
    /// "local" is the queue of this host, which "metaservice worker" starts.
    #[arg(long, value_name = "URL", env = "METASERVICE_QUEUE", hide_env_values = true)]
    pub(crate) queue: Option<String>,
    /// A file of credentials for the queue (.creds).
    #[arg(long, value_name = "FILE", env = "METASERVICE_QUEUE_CREDENTIALS", requires = "queue")]
    pub(crate) queue_credentials: Option<PathBuf>,
    /// A file of certificates (PEM) that sign those of the queue's servers. It demands TLS.
    #[arg(long, value_name = "FILE", env = "METASERVICE_QUEUE_CA", requires = "queue")]
    pub(crate) queue_ca: Option<PathBuf>,
}

impl QueueArgs {
    /// Whether a queue is named. Verbs that also know the jobs of this process's user need it.
    pub(crate) fn is_given(&self) -> bool {
        self.name().is_some()
    }

    /// The queue that is named. An empty variable of the environment names none.
    pub(crate) fn name(&self) -> Option<&str> {
        self.queue.as_deref().filter(|name| !name.is_empty())
    }

    /// The address. `None`: the queue of this host.
    fn url(&self) -> Option<&str> {
        self.name().filter(|url| *url != LOCAL)
    }

    /// The address without secrets, for people.
    pub(crate) fn shown(&self) -> String {
        let one = |url: &str| match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            (None, Some((_, host))) => host.to_owned(),
            (_, None) => url.to_owned(),
        };
        let all: Vec<_> = self.name().unwrap_or(LOCAL).split(',').map(one).collect();
        all.join(",")
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> Result<Queue> {
        self.connect_with(1).await
    }

    /// Connects. The buckets that this creates have so many copies.
    pub(super) async fn connect_with(&self, replicas: u8) -> Result<Queue> {
        let url = match self.url() {
            Some(url) => url.to_owned(),
            None => local_queue::address()?.ok_or_else(|| {
                hints::hinted(
                    "start \"metaservice worker\" on this host, or give --queue URL",
                    "this host has no queue",
                )
            })?,
        };
        self.connect_to(url, replicas).await
    }

    /// Removes the jobs of the queue that ended longer ago than this, or only those of their logs
    /// that a store has. Returns their ids.
    pub(crate) async fn prune(&self, age: Duration, only_stored_logs: bool) -> Result<Vec<JobId>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let latest = u64::try_from(now.saturating_sub(age).as_millis()).unwrap_or_default();
        let is_old = |job: &JobState| matches!(job.phase, Phase::Ended { at, .. } if at <= latest);
        let queue = self.connect().await?;
        Ok(match only_stored_logs {
            true => queue.prune_stored_logs(is_old).await?,
            false => {
                let removed = queue.prune(is_old).await?;
                queue.remove_left_parts(LEFT_AFTER).await?;
                removed
            }
        })
    }

    /// Connects to these servers. The buckets that this creates have so many copies.
    pub(super) async fn connect_to(&self, url: String, replicas: u8) -> Result<Queue> {
        let mut settings = Settings::new(url);
        settings.replicas = usize::from(replicas);
        // The server of the queue of this host has no credentials and no TLS.
        if self.url().is_some() {
            settings.credentials.clone_from(&self.queue_credentials);
            settings.ca.clone_from(&self.queue_ca);
        }
        Queue::connect(&settings).await.map_err(hinted).context("in --queue")
    }
}

/// A connection that fails, with what to do about it.
fn hinted(error: ConnectError) -> Error {
    let hint = match error.likely() {
        Some(Cause::Refused) => "check the port (4222 is usual), and that nats-server runs there",
        Some(Cause::Name) => "check the name of the host",
        Some(Cause::Silent) => "check the port (4222 is usual): no server of a queue answers there",
        Some(Cause::Plain) => {
            "the server does not speak TLS: check the port, or write nats:// without --queue-ca"
        }
        Some(Cause::Authority) => {
            "give the certificate that signed the server's: METASERVICE_QUEUE_CA=FILE"
        }
        Some(Cause::OtherName) => "write the name of the host as its certificate has it",
        Some(Cause::CaFile) => "check the file of --queue-ca",
        Some(Cause::Credentials) => {
            "check nats://USER:PASSWORD@HOST:PORT, or the file of --queue-credentials"
        }
        Some(Cause::JetStream) => "start nats-server with -js: a queue needs JetStream",
        _ => return error.into(),
    };
    let text = format!("{:#}", Error::new(error));
    hints::hinted(hint, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_people_has_no_password() {
        let shown = |queue: &str| {
            let queue = Some(queue.to_owned());
            QueueArgs { queue, queue_credentials: None, queue_ca: None }.shown()
        };
        assert_eq!(shown("local"), "local");
        assert_eq!(shown("tls://me:a@b@q.example:4222"), "tls://q.example:4222");
        assert_eq!(shown("nats://me:x@a,me:y@b"), "nats://a,b");
    }
}
