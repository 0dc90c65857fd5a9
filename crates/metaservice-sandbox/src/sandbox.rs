//! The handle of a running job.

use metaservice::{
    ActionError, AttachError, Command, Destination, FailureCode, JobStdin, ListRequest,
    MetaService, ReadRequest, Reason, WriteError,
};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::event::Event;
use crate::life::Signal;
use crate::report::Report;

/// A job in a virtual machine: the machine, its network card and its service as one handle.
///
/// Make one with [`Sandbox::builder`]. Dropping it kills the machine and removes everything.
///
/// ```no_run
/// use metaservice_sandbox::Sandbox;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let sandbox = Sandbox::builder().image("debian").command(["sleep", "infinity"]).start().await?;
/// let output = sandbox.exec(["uname", "-r"]).output().await?;
/// println!("{}", String::from_utf8_lossy(&output.stdout));
/// sandbox.stop().await;
/// # Ok(())
/// # }
/// ```
pub struct Sandbox {
    service: MetaService,
    driving: AbortOnDropHandle<Report>,
    signals: mpsc::UnboundedSender<Signal>,
    events: Option<Events>,
    started: CancellationToken,
    name: String,
}

/// The events of a job, in order.
#[derive(Debug)]
pub struct Events(mpsc::UnboundedReceiver<Event>);

impl Events {
    /// The next event; `None` after the last one.
    ///
    /// Cancellation: an event that was not returned is returned by the next call.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

impl futures_core::Stream for Events {
    type Item = Event;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Event>> {
        self.0.poll_recv(context)
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sandbox").finish_non_exhaustive()
    }
}

impl Sandbox {
    pub(crate) fn new(
        service: MetaService,
        driving: AbortOnDropHandle<Report>,
        signals: mpsc::UnboundedSender<Signal>,
        events: mpsc::UnboundedReceiver<Event>,
        started: CancellationToken,
        name: String,
    ) -> Self {
        Self { service, driving, signals, events: Some(Events(events)), started, name }
    }

    /// The service of the job, by which the host acts in the guest.
    #[must_use]
    pub fn service(&self) -> &MetaService {
        &self.service
    }

    /// Attaches to the stdin of the job's command, if its description has one, and to its terminal.
    ///
    /// # Errors
    /// When the command has neither, its stdin has ended, or another caller is attached.
    pub fn attach(&self) -> Result<JobStdin, AttachError> {
        self.service.attach()
    }

    /// A command that runs in the guest in addition to the job. One of its methods starts it.
    pub fn exec<S: Into<String>>(
        &self,
        command: impl IntoIterator<Item = S>,
    ) -> Command<'_, MetaService> {
        self.service.exec(command)
    }

    /// A file or a directory of the guest, to be read.
    pub fn read(&self, path: impl Into<String>) -> ReadRequest<'_> {
        self.service.read(path)
    }

    /// Writes a file or a directory of the guest, and gives the number of bytes.
    ///
    /// # Errors
    /// When the guest cannot write it, or `source` cannot be read.
    pub async fn write<R: AsyncRead + Send + Unpin>(
        &self,
        destination: Destination,
        source: R,
    ) -> Result<u64, WriteError> {
        self.service.write(destination, source).await
    }

    /// A directory of the guest, to be listed.
    pub fn list(&self, path: impl Into<String>) -> ListRequest<'_> {
        self.service.list(path)
    }

    /// The events of the job. The first call gets all of them, later calls none.
    pub fn events(&mut self) -> Events {
        self.events.take().unwrap_or_else(|| Events(mpsc::unbounded_channel().1))
    }

    /// Ends the job as a signal to its process does: the first kills the command, and artifacts are
    /// fetched; the second ends everything at once.
    pub fn signal(&self, signal: Signal) {
        // A job that has ended needs no signal.
        let _ = self.signals.send(signal);
    }

    /// The name of the job.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Completes when the command has started in the guest, or cannot start. Returns whether it has
    /// started. The future does not borrow the handle, and does not end with the machine.
    ///
    /// The guest is asked by SIGCONT, which a running process ignores by default. With an agent
    /// that has no signals, a command counts as started when the guest has fetched it.
    pub fn command_started(&self) -> impl Future<Output = bool> + Send + use<> {
        const SIGCONT: u8 = 18;
        let (service, running) = (self.service.clone(), self.started.clone());
        // A command that waits for the files of the job may be killed before it starts.
        let started = move |reason| started(reason, running.is_cancelled());
        async move {
            service.fetched().await;
            match service.signal(SIGCONT).await {
                Err(ActionError::Failed(failure)) if failure.code == FailureCode::NotRunning => {
                    let ending = service.result().await.ending;
                    ending.is_none_or(|ending| started(ending.reason))
                }
                Err(ActionError::Terminated) => false,
                _ => service
                    .try_result()
                    .and_then(|result| result.ending)
                    .is_none_or(|ending| started(ending.reason)),
            }
        }
    }

    /// Completes when the guest has fetched its command.
    ///
    /// # Errors
    /// When the job ended before.
    pub async fn started(&mut self) -> Result<(), Box<Report>> {
        let started = self.started.clone();
        tokio::select! {
            biased;
            () = started.cancelled() => Ok(()),
            report = &mut self.driving => Err(Box::new(completed(report))),
        }
    }

    /// Waits until the job has ended and everything is cleaned up.
    ///
    /// # Panics
    /// When it is called again after it has returned.
    pub async fn wait(&mut self) -> Report {
        completed((&mut self.driving).await)
    }

    /// Kills the command, fetches the artifacts, ends the machine and waits for all of it.
    pub async fn stop(mut self) -> Report {
        const SIGTERM: u8 = 15;
        self.signal(Signal(SIGTERM));
        self.wait().await
    }
}

/// Whether a command that ended for this reason has run. `running`: it was reported to run.
fn started(reason: Reason, running: bool) -> bool {
    match reason {
        Reason::NotFound | Reason::NotExecutable | Reason::Unsupported => false,
        Reason::Killed | Reason::TimedOut => running,
        _ => true,
    }
}

/// The driver does not panic, and is not aborted while the handle is there.
fn completed(report: Result<Report, tokio::task::JoinError>) -> Report {
    match report {
        Ok(report) => report,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("the sandbox has ended: {error}"),
        },
    }
}
