//! Copies files into the guest before the command starts.

use metaservice::MetaService;
use tokio::sync::watch;

use crate::copy::{self, Content, CopyError, How, Observer, Step};
use crate::job::{CopyIn, Job};
use crate::progress::ProgressError;

/// Why the command was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyInError {
    /// A file or directory was not copied.
    #[error("cannot copy {} to {} in the guest", copy.source().display(), copy.destination())]
    Copy {
        /// Which one.
        copy: CopyIn,
        /// Why.
        #[source]
        cause: CopyError,
    },
    /// Everything was copied, and the guest did not start the command.
    #[error("the guest does not start the command")]
    Start(#[source] metaservice::ActionError),
    /// Everything was copied, and that cannot be persisted.
    #[error(transparent)]
    Progress(#[from] ProgressError),
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyProgress {
    /// Bytes that have been copied.
    pub bytes: u64,
    /// All bytes that will be copied, if it is known.
    pub total: Option<u64>,
}

/// What happens to a copy.
#[derive(Debug)]
pub(crate) enum News {
    /// It has begun.
    Copying { copy: CopyIn, progress: watch::Receiver<CopyProgress> },
    /// It is complete.
    Copied { copy: CopyIn, content: Content },
}

/// Copies everything that the job names, in the order of the description.
///
/// Cancellation: as for [`copy::send`].
pub(crate) async fn run(
    job: &Job,
    service: &MetaService,
    report: impl Fn(News),
) -> Result<(), CopyInError> {
    for copy in &job.copy_in {
        let (sender, progress) = watch::channel(CopyProgress::default());
        let observer = Observer::new(move |step| {
            sender.send_modify(|progress| match step {
                Step::Total(total) => progress.total = total,
                Step::Bytes(bytes) => progress.bytes = bytes,
            });
        });
        report(News::Copying { copy: copy.clone(), progress });
        let copied =
            copy::send(service, &copy.from, copy.to.clone(), How::default(), &observer).await;
        match copied {
            Ok(content) => report(News::Copied { copy: copy.clone(), content }),
            Err(cause) => return Err(CopyInError::Copy { copy: copy.clone(), cause }),
        }
    }
    Ok(())
}
