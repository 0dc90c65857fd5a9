//! The jobs of this user on this host, for the page.

use futures_util::future::BoxFuture;
use metaservice_sandbox::control::{self, ControlError};
use metaservice_sandbox::{JobsWatch, ListedJob};
use metaservice_web::{Found, Listing, Source, SourceError};
use tokio::sync::watch;

/// The jobs of this user on this host.
pub(super) struct Host;

impl Source for Host {
    fn follow(&self, lists: watch::Sender<Listing>) -> BoxFuture<'static, SourceError> {
        Box::pin(async move {
            let following = async {
                let mut jobs = JobsWatch::open()?;
                loop {
                    let list = Listing::new(jobs.next().await?.iter().filter_map(row).collect());
                    // What is the same is not sent again.
                    lists.send_if_modified(|known| {
                        let changed = *known != list;
                        *known = list;
                        changed
                    });
                }
            };
            let Err::<std::convert::Infallible, ControlError>(error) = following.await;
            SourceError::Failed(error.into())
        })
    }

    fn find<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Found, SourceError>> {
        Box::pin(async move {
            match control::lookup(name).await {
                Ok(control::Found::Running(client)) => Ok(Found::Running(client)),
                Ok(control::Found::Ended(past)) => {
                    // A job that left no log has none.
                    let log = tokio::task::block_in_place(|| past.log().ok());
                    Ok(Found::Ended { job: Box::new(past.job), log })
                }
                Ok(_) | Err(ControlError::NotFound { .. }) => Err(SourceError::NotFound),
                Err(error) => Err(SourceError::Failed(error.into())),
            }
        })
    }
}

fn row(job: &ListedJob) -> Option<metaservice_web::ListedJob> {
    use metaservice_web::ListedJob as Row;
    match job {
        ListedJob::Running(job) => Some(Row::running(job)),
        ListedJob::Ended(past) => Some(Row::ended(&past.job, past.ended_ms)),
        ListedJob::Silent { name, .. } => Some(Row::silent(name)),
        _ => None,
    }
}
