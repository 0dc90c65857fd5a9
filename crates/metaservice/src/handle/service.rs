//! The service of one job: serving the guest, following the job, and its end.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use metaservice_protocol::{AgentInfo, Reason};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::guest::connection::serve;
use crate::guest::context::GuestContext;
use crate::guest::listener::Listener;
use crate::job::contact::Contact;
use crate::job::log::{LogError, LogFrom, LogReader};
use crate::job::need::Need;
use crate::job::result::JobResult;
use crate::job::state::Job;

/// How long responses may still be written after a shutdown.
const LINGER: Duration = Duration::from_secs(2);

/// The metadata service of one job, and the host's handle on it. Clones share the job.
///
/// - *Serving:* [`serve`](Self::serve), [`serve_connection`](Self::serve_connection).
/// - *The job:* [`fetched`](Self::fetched), [`result`](Self::result), [`agent`](Self::agent),
///   [`contact`](Self::contact), [`log_reader`](Self::log_reader).
/// - *The command:* [`attach`](Self::attach), [`signal`](Self::signal), [`kill`](Self::kill).
/// - *Other commands:* [`exec`](Self::exec).
/// - *Files:* [`read`](Self::read), [`write`](Self::write), [`list`](Self::list).
/// - *The guest:* [`dial`](Self::dial), [`stats`](Self::stats).
/// - *The end:* [`stop_pollers`](Self::stop_pollers), [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct MetaService {
    pub(crate) job: Arc<Job>,
    guest: Arc<GuestContext>,
}

impl MetaService {
    pub(crate) fn new(guest: GuestContext) -> Self {
        Self { job: Arc::clone(&guest.job), guest: Arc::new(guest) }
    }

    /// Serves one byte stream until it ends, or until the response that is under way at
    /// [`shutdown`](Self::shutdown) is written. Dropping the future closes the connection.
    ///
    /// # Errors
    /// If the connection broke or did not speak HTTP/1.1.
    pub async fn serve_connection<IO>(&self, io: IO) -> io::Result<()>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        serve::serve(io, &self.guest).await
    }

    /// Serves the connections of `listener`, at most
    /// [`Limits::connections`](crate::Limits::connections) at once, until the service is [shut
    /// down](Self::shutdown). Responses that are under way then have two more seconds. Dropping the
    /// future closes all connections at once.
    pub async fn serve<L: Listener>(self, mut listener: L) {
        let most = self.job.limits.connections.clamp(1, Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(most));
        let mut connections = JoinSet::new();
        let mut terminated = self.terminated();
        loop {
            let next = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, listener.accept().await)
            };
            tokio::select! {
                (permit, (io, peer)) = next => {
                    let service = self.clone();
                    connections.spawn(async move {
                        let _permit = permit;
                        if let Err(error) = service.serve_connection(io).await {
                            tracing::debug!(?peer, %error, "a connection ended with an error");
                        }
                    });
                }
                // Frees the memory of connections that have ended.
                Some(_) = connections.join_next() => {}
                _ = terminated.wait_for(|terminated| *terminated) => break,
            }
        }
        drop(listener);
        let finished = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LINGER, finished).await;
    }

    /// Frees the session for another agent, and gives it all secrets, as after a change of the
    /// machine that had claimed the job. Returns `false`, and changes nothing, if the command was
    /// fetched or the service has a [state directory](crate::Builder::state).
    pub fn release(&self) -> bool {
        self.job.release()
    }

    /// Waits until the guest has fetched its command. Cancel safe.
    pub async fn fetched(&self) {
        // The sender lives as long as `self`.
        let _ = self.job.fetched.subscribe().wait_for(Option::is_some).await;
    }

    /// Whether the guest has fetched its command.
    #[must_use]
    pub fn is_fetched(&self) -> bool {
        self.job.is_fetched()
    }

    /// When the guest first fetched its command. With a [state directory](crate::Builder::state),
    /// this may have been from an earlier process.
    #[must_use]
    pub fn fetched_at(&self) -> Option<SystemTime> {
        self.job.fetched_at()
    }

    /// What the guest's agent announced last; `None` before its first request, and for an agent of
    /// version 1.
    #[must_use]
    pub fn agent(&self) -> Option<AgentInfo> {
        self.job.agent.borrow().clone()
    }

    /// Waits until the guest fetches a command that goes without something, because its agent
    /// cannot do it. Cancel safe.
    pub async fn without(&self) -> Vec<Need> {
        let mut without = self.job.without.subscribe();
        let needs = without.wait_for(|needs| !needs.is_empty()).await;
        // The sender lives as long as `self`.
        needs.map(|needs| needs.clone()).unwrap_or_default()
    }

    /// What the host knows of the guest's agent: whether it is present, silent, dead or refused.
    #[must_use]
    pub fn contact(&self) -> Contact {
        self.job.contact.get()
    }

    /// Waits until the [contact](Self::contact) differs from `before`. Cancel safe.
    pub async fn contact_changed(&self, before: Contact) -> Contact {
        self.job.contact.changed(before).await
    }

    /// Says that the machine is paused, or runs again. A paused machine is not silent, and the time
    /// of the pause does not count.
    pub fn machine_paused(&self, paused: bool) {
        self.job.contact.pause(paused);
    }

    /// A reader of the part of the log that is [kept](crate::Builder::keep_log), from `from` on.
    /// With `follow`, it waits for more until the job has a result and no log request is under way,
    /// or until the service is shut down. `None` if nothing is kept.
    ///
    /// # Errors
    /// If the file that keeps the log cannot be read.
    pub async fn log_reader(&self, from: LogFrom, follow: bool) -> io::Result<Option<LogReader>> {
        self.job.log.reader(from, follow).await.transpose()
    }

    /// Whether the log may lack bytes. It may if a log request of an agent of version 1 was cut, or
    /// was under way when an earlier process of this [state](crate::Builder::state) ended.
    #[must_use]
    pub fn log_has_hole(&self) -> bool {
        self.job.holes.has()
    }

    /// Waits until the log [may lack bytes](Self::log_has_hole). Cancel safe.
    pub async fn log_hole(&self) {
        self.job.holes.found().await;
    }

    /// Waits until no log request is under way. Cancel safe.
    pub async fn log_idle(&self) {
        self.job.log.idle().await;
    }

    /// Waits until the log sink fails; without end if it does not. The guest gets an
    /// `InternalError`. Decide yourself what to do with the job. Cancel safe.
    pub async fn log_failed(&self) -> LogError {
        self.job.log.failed().await
    }

    /// Waits until the log is no longer [kept](crate::Builder::keep_log) for readers, because its
    /// files cannot be written; without end if they can. The log sink is not affected. Cancel safe.
    pub async fn log_unkept(&self) -> Arc<io::Error> {
        self.job.log.unkept().await
    }

    /// Waits for the job's result. Cancel safe.
    pub async fn result(&self) -> JobResult {
        self.job.result.wait().await
    }

    /// The job's result, if the guest has reported it.
    #[must_use]
    pub fn try_result(&self) -> Option<JobResult> {
        self.job.result.get()
    }

    /// Records that the command is killed because its time is over: a result that says *killed*
    /// then says [`Reason::TimedOut`].
    pub(crate) fn killed_by_timeout(&self) {
        self.job.result.killed_for(Reason::TimedOut);
    }

    /// Answers each poll with `none`, those that wait and later ones, until the service ends. Use
    /// it before the machine stops. No action is delivered any more.
    pub fn stop_pollers(&self) {
        self.job.actions.stop_pollers();
    }

    /// Ends the service. Each pending action and each stream ends as terminated, and
    /// [`serve`](Self::serve) returns. When this returns, every byte of the log that arrived is
    /// written and flushed.
    ///
    /// # Errors
    /// [`LogError`] if the log cannot be written.
    pub async fn shutdown(&self) -> Result<(), LogError> {
        self.job.terminated.send_replace(true);
        self.job.actions.stop_pollers();
        let flushed = self.job.log.flush().await;
        self.job.log.complete().await;
        flushed
    }

    /// Becomes true when the service is shut down.
    pub(crate) fn terminated(&self) -> watch::Receiver<bool> {
        self.job.terminated.subscribe()
    }
}

impl fmt::Debug for MetaService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetaService")
            .field("contact", &self.contact())
            .field("result", &self.try_result())
            .finish_non_exhaustive()
    }
}
