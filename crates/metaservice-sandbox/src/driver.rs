//! The I/O around a job's [`Life`]: performs each effect, and reports its result as an input.
//!
//! Owns the machine, its card, the control socket and every task of the job. Dropping the driver
//! ends all of them. It decides nothing.

mod copies;
mod effects;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metaservice::control::MachineDescription;
use metaservice::{ActionError, Contact, LogError, MetaService, Need, Reason};
use metaservice_qemu::{Exit, Machine};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::attempt::{Attempt, Attempted};
use crate::collect::Missing;
use crate::control::Control;
use crate::copy_in::CopyInError;
use crate::event::{CONTACT_LIMIT, Event, EventSender};
use crate::force::ForceOrders;
use crate::history::{HistoryError, Recorder};
use crate::job::Job;
use crate::life::{Collected, Effect, End, Input, Life, Outcome, Rules, Signal, Start, State};
use crate::machine::MachineError;
use crate::machine::snapshot::CONSOLE_LINES;
use crate::place::Place;
use crate::progress::{Progress, ProgressError};
use crate::report::Report;

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) job: Arc<Job>,
    pub(crate) service: MetaService,
    pub(crate) control: Option<Control>,
    /// Writes the end of the job, if it has a history.
    pub(crate) recorder: Option<Recorder>,
    pub(crate) machine: MachineDescription,
    pub(crate) progress: Progress,
    pub(crate) place: Place,
    pub(crate) rules: Rules,
    pub(crate) events: EventSender,
    pub(crate) signals: mpsc::UnboundedReceiver<Signal>,
    /// Orders to end the machine at once.
    pub(crate) forces: ForceOrders,
    /// Cancelled when the guest has fetched its command.
    pub(crate) started: CancellationToken,
}

/// What a task reports.
pub(crate) enum Message {
    Fetched,
    Result,
    Without(Vec<Need>),
    LogFailed(LogError),
    Contact(Contact),
    LogHole,
    /// The log is no longer kept for the history.
    Unkept(Arc<io::Error>),
    /// Of an attempt to start the machine, by its number.
    Attempt(u32, Attempted),
    KillTaken,
    KillFailed(ActionError),
    /// The files that the guest gets are in place.
    Copied(Result<(), CopyInError>),
    /// The guest has started the command after that.
    CommandStarted(Result<(), ActionError>),
    Collected {
        missing: Missing,
        progress: Progress,
    },
    Closed(Result<(), LogError>),
    MachineEnded {
        exit: Option<Exit>,
        progress: Option<ProgressError>,
    },
}

pub(crate) struct Driver {
    parts: Parts,
    life: Life,
    inbox: mpsc::UnboundedReceiver<Message>,
    sender: mpsc::UnboundedSender<Message>,
    tasks: JoinSet<()>,
    attempts: u32,
    attempt: Option<Attempt>,
    copying_in: Option<AbortHandle>,
    collecting: Option<AbortHandle>,
    contact: Contact,
    contacts: usize,
    log: Option<LogError>,
    missing: Missing,
    not_started: Option<MachineError>,
    exit: Option<Exit>,
    progress_error: Option<ProgressError>,
    booted: bool,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let (sender, inbox) = mpsc::unbounded_channel();
        Self {
            life: Life::new(parts.rules.clone()),
            missing: Missing { count: parts.job.artifacts.len(), exceeds: false },
            parts,
            inbox,
            sender,
            tasks: JoinSet::new(),
            attempts: 0,
            attempt: None,
            copying_in: None,
            collecting: None,
            contact: Contact::Awaited,
            contacts: 0,
            log: None,
            not_started: None,
            exit: None,
            progress_error: None,
            booted: false,
        }
    }

    /// Drives the job to its end.
    pub(crate) async fn run(mut self) -> Report {
        self.watch_service();
        loop {
            while let Some(effect) = self.life.effect() {
                match effect {
                    Effect::Finish(outcome) => return self.finish(outcome).await,
                    effect => self.perform(effect),
                }
            }
            let deadline = self.life.deadline();
            tokio::select! {
                biased;
                Some(message) = self.inbox.recv() => self.take(message),
                Some(signal) = self.parts.signals.recv() => self.handle(Input::Signal(signal)),
                force = self.parts.forces.next() => self.handle(Input::Forced(force)),
                () = until(deadline) => self.handle_time(),
            }
        }
    }

    fn spawn(
        &mut self,
        work: impl Future<Output = Option<Message>> + Send + 'static,
    ) -> AbortHandle {
        let sender = self.sender.clone();
        let task = async move {
            if let Some(message) = work.await {
                let _ = sender.send(message);
            }
        };
        self.tasks.spawn(task.in_current_span())
    }

    fn report_event(&self, event: Event) {
        // The caller may not want events.
        self.parts.events.send(event);
    }

    fn watch_service(&mut self) {
        let service = || self.parts.service.clone();
        let (fetched, result, without) = (service(), service(), service());
        let (log, hole) = (service(), service());
        self.spawn(async move {
            fetched.fetched().await;
            Some(Message::Fetched)
        });
        self.spawn(async move {
            result.result().await;
            Some(Message::Result)
        });
        self.spawn(async move { Some(Message::LogFailed(log.log_failed().await)) });
        self.spawn(async move {
            hole.log_hole().await;
            Some(Message::LogHole)
        });
        self.spawn(async move { Some(Message::Without(without.without().await)) });
        if self.parts.recorder.is_some() {
            let unkept = self.parts.service.clone();
            self.spawn(async move { Some(Message::Unkept(unkept.log_unkept().await)) });
        }
        self.watch_contact();
    }

    /// Reports what the command goes without. Separate outputs are the default, so they are missed
    /// only by a description that asks for them.
    fn without(&self, mut needs: Vec<Need>) {
        if !self.parts.job.asks_to_separate_stderr() && needs.contains(&Need::Streams) {
            tracing::info!("the agent in the guest cannot {}: they are merged", Need::Streams);
            needs.retain(|need| *need != Need::Streams);
        }
        if !needs.is_empty() {
            self.report_event(Event::Without(needs));
        }
    }

    fn watch_contact(&mut self) {
        let (service, before) = (self.parts.service.clone(), self.contact);
        self.spawn(async move { Some(Message::Contact(service.contact_changed(before).await)) });
    }

    /// Hands an input to the life.
    fn handle(&mut self, input: Input) {
        let now = self.note_result();
        self.life.handle(input, now);
    }

    /// A result that the guest has reported counts before any other input. Returns the time.
    fn note_result(&mut self) -> Instant {
        let now = Instant::now();
        if let Some(input) = self.result() {
            if self.has_failed() {
                self.life.handle(Input::Failed, now);
            }
            self.life.handle(input, now);
        }
        now
    }

    /// Whether the command has failed, and no client has killed it.
    fn has_failed(&self) -> bool {
        self.parts.service.try_result().is_some_and(|result| {
            let reason = result.ending.map(|ending| ending.reason);
            !result.success && reason != Some(Reason::Killed)
        })
    }

    /// The input for the result that the service has, if it has one.
    fn result(&self) -> Option<Input> {
        let reason = self.parts.service.try_result()?.ending.map(|ending| ending.reason);
        let unsupported = reason == Some(Reason::Unsupported);
        Some(if unsupported { Input::Unsupported } else { Input::Result })
    }

    fn handle_time(&mut self) {
        let now = self.note_result();
        let before = self.life.state();
        self.life.handle_time(now);
        match (before, self.life.state()) {
            (State::Killing(_), State::Collecting) => self.report_event(Event::KillUnreported),
            (State::Killing(_), State::Closing) if self.life.is_abandoned() => {
                self.report_event(Event::KillNotTaken);
            }
            (State::Killing(_), State::Closing) => self.report_event(Event::KillUnreported),
            _ => {}
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Fetched => self.fetched(),
            Message::Result => drop(self.note_result()),
            Message::Without(needs) => self.without(needs),
            Message::LogFailed(error) => {
                let unread = crate::output::is_unread(&error);
                self.log = Some(error);
                self.handle(Input::LogFailed { unread });
            }
            Message::Contact(now) => self.contact_changed(now),
            Message::Unkept(error) => self.unkept(&error),
            Message::LogHole => self.report_event(Event::LogHole),
            Message::Attempt(number, attempted) if number == self.attempts => {
                self.attempted(attempted);
            }
            // The attempt was given up.
            Message::Attempt(..) => {}
            Message::KillTaken => self.handle(Input::KillTaken),
            Message::KillFailed(error) => {
                // Later, the end of the service has failed it.
                if matches!(self.life.state(), State::Killing(_)) {
                    self.report_event(Event::KillFailed(error));
                }
                self.handle(Input::KillFailed);
            }
            Message::Copied(copied) => self.copied(copied),
            Message::CommandStarted(started) => self.command_started(started),
            Message::Collected { missing, progress } => {
                self.missing = missing;
                self.parts.progress = progress;
                let all = if missing.count == 0 { Collected::All } else { Collected::Failed };
                self.handle(Input::Collected(all));
            }
            Message::Closed(closed) => {
                if let Err(error) = closed {
                    self.log = Some(error);
                }
                self.handle(Input::Closed);
            }
            Message::MachineEnded { exit, progress } => {
                self.exit = exit;
                self.progress_error = progress;
                self.handle(Input::MachineEnded);
            }
        }
    }

    fn fetched(&mut self) {
        let starting = self.life.state();
        let at = self.parts.service.fetched_at();
        let ago = at.and_then(|at| at.elapsed().ok()).unwrap_or_default();
        self.handle(Input::Fetched(ago));
        if let State::Starting(start) = starting {
            if start == Start::Restore {
                self.report_event(Event::MachineStarted(start));
            }
            if self.life.state() != State::CopyingIn {
                self.started();
            }
        }
    }

    /// The command runs, or has ended.
    fn started(&self) {
        self.report_event(Event::Started { name: self.parts.job.name().to_owned() });
        self.parts.started.cancel();
    }

    fn contact_changed(&mut self, now: Contact) {
        let before = std::mem::replace(&mut self.contact, now);
        self.contacts += 1;
        if self.contacts <= CONTACT_LIMIT {
            self.report_event(Event::Contact { before, now });
        }
        match now {
            Contact::Present => self.handle(Input::AgentBack),
            Contact::Silent => self.handle(Input::AgentSilent),
            Contact::Dead => self.handle(Input::AgentDead),
            Contact::NoGuest => self.handle(Input::NoGuest),
            _ => {}
        }
        self.watch_contact();
    }

    fn attempted(&mut self, attempted: Attempted) {
        match attempted {
            Attempted::Started { restored } => {
                self.booted = !restored;
                self.describe_machine(restored);
                if !restored {
                    self.report_event(Event::MachineStarted(Start::Boot));
                }
                self.handle(Input::MachineStarted);
            }
            Attempted::NotRestored => self.handle(Input::RestoreFailed),
            Attempted::Failed(error) => {
                self.not_started = Some(error);
                self.handle(Input::StartFailed);
            }
            Attempted::Gone(exit) => {
                if matches!(self.life.state(), State::Killing(_)) {
                    let console = self.console();
                    self.report_event(Event::MachineGone { exit: exit.clone(), console });
                }
                self.exit = Some(exit);
                let now = self.note_result();
                let reported = self.parts.service.try_result().is_some();
                self.life.handle(Input::MachineGone { reported }, now);
            }
        }
    }

    /// What clients are shown of the machine.
    fn describe_machine(&self, restored: bool) {
        let Place::Machine { describer, .. } = &self.parts.place else { return };
        let Some(attempt) = &self.attempt else { return };
        describer.forget();
        self.parts.machine.set_with(attempt.description(describer.plan(), restored));
    }

    fn unkept(&self, error: &io::Error) {
        let Some(recorder) = &self.parts.recorder else { return };
        let cause = io::Error::new(error.kind(), error.to_string());
        self.report_event(Event::NoHistory(HistoryError { path: recorder.claim.path(), cause }));
    }

    /// Says that the machine is kept, to the caller and to clients.
    fn keep(&mut self, period: Duration) {
        let until = SystemTime::now() + period;
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        if let (Place::Machine { describer, .. }, Some(attempt)) =
            (&self.parts.place, &self.attempt)
        {
            let describe = attempt.description(describer.plan(), !self.booted);
            self.parts.machine.set_with(move || {
                let mut machine = describe();
                machine["keptUntilMs"] = u64::try_from(until).unwrap_or(u64::MAX).into();
                machine
            });
        }
        let status = self.parts.service.try_result().map_or(1, |result| result.status());
        let name = self.parts.job.name().to_owned();
        self.report_event(Event::Kept { name, status, period });
    }

    /// What the history says of the machine.
    fn describe(&self) -> serde_json::Value {
        let Place::Machine { describer, .. } = &self.parts.place else { return Default::default() };
        let Some(attempt) = &self.attempt else { return Default::default() };
        attempt.description(describer.plan(), !self.booted)()
    }

    fn machine(&self) -> Option<Arc<Machine>> {
        self.attempt.as_ref().and_then(Attempt::machine)
    }

    fn console(&self) -> Vec<String> {
        self.machine().map(|machine| machine.console().tail(CONSOLE_LINES)).unwrap_or_default()
    }

    async fn finish(mut self, outcome: Outcome) -> Report {
        let mut report = self.report(Some(outcome));
        report.console = self.console();
        let described = self.describe();
        if let Some(machine) = self.machine() {
            let exit = machine.kill().await;
            report.exit.get_or_insert(exit);
        }
        // Tasks are gone, and not only aborted: nothing of the job is left after the report.
        self.tasks.shutdown().await;
        if let Some(attempt) = self.attempt.take() {
            attempt.end().await;
        }
        report.not_started = self.not_started.take();
        report.progress = self.progress_error.take();
        if let Some(recorder) = self.parts.recorder.take()
            && let Err(error) = recorder.finish(&report, &self.parts.service, described)
        {
            self.report_event(Event::NoHistory(error));
        }
        report
    }

    fn report(&self, outcome: Option<Outcome>) -> Report {
        let unknown = Outcome { end: End::MachineGone, collected: Collected::MachineGone };
        let wants_snapshot = match &self.parts.place {
            Place::Machine { describer, .. } => self.booted && describer.plan().wants_snapshot(),
            Place::Elsewhere { .. } => false,
        };
        Report {
            outcome: outcome.unwrap_or(unknown),
            result: self.parts.service.try_result(),
            log: self.log.clone(),
            fetched: self.parts.service.is_fetched(),
            missing: self.missing.count,
            exceeds_artifacts: self.missing.exceeds,
            not_started: None,
            exit: self.exit.clone(),
            console: Vec::new(),
            progress: None,
            wants_snapshot,
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
