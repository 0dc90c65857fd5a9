//! Where artifacts and whole logs are kept.

use anyhow::{Context, Result};
use clap::Args;
use metaservice_fleet::queue::Queue;
use metaservice_fleet::step::Object;
use metaservice_fleet::store::Store;
use tokio::io::AsyncWrite;

use super::connection::QUEUE;
use crate::hints;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = QUEUE)]
pub(crate) struct StoreArgs {
    /// Where workers keep artifacts and whole logs: file:///DIR, s3://BUCKET, gs://BUCKET or
    /// az://CONTAINER [default: the queue].
    ///
    /// The credentials come from the variables of the provider's tools, such as AWS_ACCESS_KEY_ID.
    #[arg(long, value_name = "URL", env = "METASERVICE_STORE")]
    pub(crate) store: Option<String>,
}

impl StoreArgs {
    /// The store, if one is given.
    pub(super) fn open(&self) -> Result<Option<Store>> {
        self.store.as_deref().map(Store::open).transpose().context("in --store")
    }
}

/// The stores that a client reads: that of the queue, and the one that is given. A client uses no
/// store that only a worker names.
pub(crate) struct Stores {
    queue: Store,
    given: Option<Store>,
}

impl Stores {
    pub(crate) fn open(queue: &Queue, args: &StoreArgs) -> Result<Self> {
        Ok(Self { queue: Store::of_queue(queue.clone()), given: args.open()? })
    }

    /// Reads an object.
    pub(crate) async fn get(
        &self,
        object: &Object,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<()> {
        let store = match (&object.store, &self.given) {
            (None, _) => &self.queue,
            (Some(url), Some(given)) if given.url() == Some(url) => given,
            (Some(url), _) => {
                let url = crate::output::printer::printable(url);
                return Err(hints::hinted(
                    format!("give --store {url}, or set METASERVICE_STORE"),
                    "the worker has kept it in a store that this command does not use",
                ));
            }
        };
        Ok(store.get(object, to).await?)
    }
}
