//! One attempt to start a job's machine: from a snapshot, or by a boot.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metaservice::MetaService;
use metaservice_gateway::{LogEnd, LogFile};
use metaservice_nic::Pcap;
use metaservice_private::lock;
use metaservice_qemu::{Disk, Exit, InUse, Machine, MachineSpec, MachineState, StartError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::blocking::block;
use crate::event::{Event, EventSender, RestoreError};
use crate::history::NETWORK_LOG;
use crate::job::{Job, OutputField};
use crate::life::Start;
use crate::machine::card::{self, CardParts, NetworkCard, Routes, WaitingCard};
use crate::machine::snapshot::{Snapshot, SnapshotError};
use crate::machine::{Describer, Individual, MachineError, Names, Plan, SavedNetwork, WarmMachine};
use crate::network::GuestNetwork;
use crate::output;

/// How long it may take to read what a machine sent before it ended. The host has it already, but
/// the log's sink may be slow.
const REST_TIMEOUT: Duration = Duration::from_secs(5);

/// What came of an attempt.
pub(crate) enum Attempted {
    /// The machine runs.
    Started { restored: bool },
    /// There is no snapshot, or it cannot be read, or it does not start.
    NotRestored,
    /// The machine does not start, and no other would.
    Failed(MachineError),
    /// The machine ended without a request. What it had sent has been read.
    Gone(Exit),
}

/// What an attempt needs.
pub(crate) struct Beginning {
    pub(crate) start: Start,
    /// The attempt before, which has failed. It is ended first: its agent may hold the job.
    pub(crate) failed: Option<Attempt>,
    pub(crate) describer: Arc<Describer>,
    pub(crate) individual: Individual,
    /// A machine that is restored already, for the first attempt.
    pub(crate) warm: Option<Box<WarmMachine>>,
    /// The cgroup that the machine joins.
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) job: Arc<Job>,
    pub(crate) service: MetaService,
    pub(crate) network: GuestNetwork,
    /// The directory of the job's history, if it has one.
    pub(crate) history: Option<PathBuf>,
    /// A disk that is written in place of the image.
    pub(crate) disk: Option<Disk>,
    pub(crate) events: EventSender,
    pub(crate) report: Box<dyn Fn(Attempted) + Send + Sync>,
}

/// A snapshot that was tried, and why it does not start, as far as the attempt knows.
pub(crate) struct Restored {
    pub(crate) snapshot: Snapshot,
    pub(crate) error: Option<RestoreError>,
}

/// What an attempt has made so far.
#[derive(Default)]
struct Made {
    machine: Option<Arc<Machine>>,
    card: Option<NetworkCard>,
    restored: Option<Restored>,
    /// For as long as the machine runs.
    _in_use: Option<InUse>,
}

/// An attempt to start a machine. Dropping it ends the machine.
pub(crate) struct Attempt {
    made: Arc<Mutex<Made>>,
    network: GuestNetwork,
    task: AbortOnDropHandle<()>,
}

impl Attempt {
    pub(crate) fn begin(mut beginning: Beginning) -> Self {
        let made = Arc::new(Mutex::new(Made::default()));
        let failed = beginning.failed.take();
        let network = beginning.network.clone();
        let work = Work { beginning, made: Arc::clone(&made) };
        let task = tokio::spawn(work.run(failed).in_current_span());
        Self { made, network, task: AbortOnDropHandle::new(task) }
    }

    pub(crate) fn machine(&self) -> Option<Arc<Machine>> {
        lock(&self.made).machine.clone()
    }

    /// Cancelled when the service has answered the guest's last request.
    pub(crate) fn served(&self) -> Option<CancellationToken> {
        lock(&self.made).card.as_ref().map(NetworkCard::served)
    }

    /// Ends the attempt, with everything that it has made.
    pub(crate) async fn end(self) {
        self.task.abort();
        let _ = self.task.await;
        let card = lock(&self.made).card.take();
        if let Some(card) = card {
            card.end().await;
        }
    }

    /// The snapshot of this attempt, if it had one. A second call gets none.
    pub(crate) fn take_restored(&self) -> Option<Restored> {
        lock(&self.made).restored.take()
    }

    /// What clients are shown of the machine, with the statistics of its card at that time.
    pub(crate) fn description(
        &self,
        plan: &Plan,
        restored: bool,
    ) -> impl Fn() -> serde_json::Value + Send + use<> {
        let made = lock(&self.made);
        let kvm = made.machine.as_ref().is_some_and(|machine| machine.accelerator().kvm);
        let observer = made.card.as_ref().map(|card| card.observer().clone());
        let gateway = made.card.as_ref().map(|card| card.gateway().clone());
        let (summary, network) = (plan.summary(), self.network.clone());
        move || {
            serde_json::json!({
                "cpus": summary.cpus,
                "memory": summary.memory,
                "image": summary.image,
                "digest": summary.digest,
                "kernel": summary.kernel,
                "network": summary.network,
                "published": network.published(),
                "attempts": gateway.as_ref().map(metaservice_gateway::Control::totals),
                "accelerator": if kvm { "kvm" } else { "tcg" },
                "snapshot": restored,
                "card": observer.as_ref().map(|observer| card::describe(&observer.statistics())),
            })
        }
    }
}

struct Work {
    beginning: Beginning,
    made: Arc<Mutex<Made>>,
}

impl Work {
    async fn run(mut self, failed: Option<Attempt>) {
        if let Some(failed) = failed {
            failed.end().await;
            // Its agent may have claimed the job.
            self.beginning.service.release();
        }
        let started = match (self.beginning.start, self.beginning.warm.take()) {
            (Start::Restore, Some(warm)) => self.take_over(*warm).await,
            (Start::Restore, None) => self.restore().await,
            (Start::Boot, _) => self.boot().await,
        };
        let report = &self.beginning.report;
        match started {
            Err(attempted) => report(attempted),
            Ok(machine) => {
                let restored = self.beginning.start == Start::Restore;
                report(Attempted::Started { restored });
                let exit = tokio::select! {
                    exit = machine.wait() => exit,
                    never = self.watch_console(&machine) => match never {},
                    never = follow_pauses(machine.states(), &self.beginning.service) => {
                        match never {}
                    }
                };
                self.read_rest().await;
                report(Attempted::Gone(exit));
            }
        }
    }

    async fn boot(&self) -> Result<Arc<Machine>, Attempted> {
        let Beginning { describer, individual, events, disk, .. } = &self.beginning;
        let saved = SavedNetwork::default();
        let card = self.connect(saved).await.map_err(Attempted::Failed)?;
        let describe = || describer.describe(Some(individual), card);
        let spec = block(describe).map_err(|error| Attempted::Failed(error.into()))?;
        for notice in describer.notices() {
            events.send(Event::Cache(notice));
        }
        let spec = match disk {
            Some(disk) => spec.writable_disk(disk.clone()),
            None => spec,
        };
        let spec = self.with_console(spec).await.map_err(Attempted::Failed)?;
        let machine = Machine::start(self.with_cgroup(spec)).await;
        Ok(self.keep(machine.map_err(|error| Attempted::Failed(error.into()))?))
    }

    async fn restore(&self) -> Result<Arc<Machine>, Attempted> {
        let Beginning { describer, events, .. } = &self.beginning;
        let saved = match block(|| Snapshot::find(describer)) {
            Ok(Some(mut snapshot)) => {
                let saved = snapshot.network();
                lock(&self.made)._in_use = snapshot.take_mark();
                lock(&self.made).restored = Some(Restored { snapshot, error: None });
                saved
            }
            Ok(None) => return Err(Attempted::NotRestored),
            Err(error) if error.is_of_snapshot() => {
                events.send(Event::NoSnapshot(error));
                return Err(Attempted::NotRestored);
            }
            Err(error) => return Err(Attempted::Failed(self.not_described(error))),
        };
        let card = self.connect(saved).await.map_err(Attempted::Failed)?;
        let described = block(|| describer.describe(None, card));
        let spec = described.map_err(|error| Attempted::Failed(error.into()))?;
        let spec = describer.share(spec);
        let spec = {
            let made = lock(&self.made);
            match &made.restored {
                Some(restored) => restored.snapshot.restore(spec),
                None => spec,
            }
        };
        match Machine::start(self.with_cgroup(spec)).await {
            Ok(machine) => Ok(self.keep(machine)),
            // A machine that boots would not start either.
            Err(
                error @ (StartError::Spec(_)
                | StartError::Process(_)
                | StartError::Cgroup(_)
                | StartError::NoMemory(_)),
            ) => Err(Attempted::Failed(error.into())),
            Err(error) => {
                if let Some(restored) = &mut lock(&self.made).restored {
                    restored.error = Some(error.into());
                }
                Err(Attempted::NotRestored)
            }
        }
    }

    /// The same is wrong with a machine that boots.
    fn not_described(&self, error: SnapshotError) -> MachineError {
        match error {
            SnapshotError::Describe(error) => error.into(),
            error => MachineError::Snapshot(Box::new(error)),
        }
    }

    /// Takes a machine whose agent waits already. The service answers it.
    async fn take_over(&self, warm: WarmMachine) -> Result<Arc<Machine>, Attempted> {
        let (machine, card, names, in_use) = warm.into_parts();
        lock(&self.made)._in_use = in_use;
        let machine = self.keep(machine);
        if let Some(directory) = &self.beginning.cgroup {
            let joined = machine.join_cgroup(directory).await.map_err(StartError::from);
            joined.map_err(|error| Attempted::Failed(error.into()))?;
        }
        self.open(card, names).await.map_err(Attempted::Failed)?;
        Ok(machine)
    }

    /// Makes the card that the service serves; the machine's end of it.
    async fn connect(
        &self,
        saved: SavedNetwork,
    ) -> Result<std::os::unix::net::UnixStream, MachineError> {
        let parts = CardParts {
            limits: self.beginning.job.limits.card,
            pcap: self.pcap().await?,
            stale: saved.connections,
        };
        let (card, guest) = WaitingCard::attach(parts).map_err(MachineError::Card)?;
        self.open(card, saved.names).await?;
        Ok(guest)
    }

    /// Serves the guest of a card, and lets it reach what the job may reach.
    async fn open(&self, card: WaitingCard, names: Names) -> Result<(), MachineError> {
        let service = self.beginning.service.clone();
        let network = &self.beginning.job.hardware.network;
        let mut gateway = metaservice_gateway::Config::default();
        gateway.policy = self.beginning.network.policy();
        gateway.limits = self.beginning.job.limits.network;
        gateway.log = self.network_log().await?;
        gateway.names = names;
        let events = self.beginning.events.clone();
        let denied = Box::new(move |denial| events.send(Event::Denied(Box::new(denial))));
        let card = card.open(Routes { gateway, denied }, |listener| service.serve(listener));
        self.beginning.network.attach(card.gateway().clone());
        lock(&self.made).card = Some(card);
        for publish in network.published() {
            let address = self.beginning.network.open(*publish).await;
            let address = address.map_err(MachineError::Publish)?;
            let published = Event::Published { publish: *publish, address };
            self.beginning.events.send(published);
        }
        Ok(())
    }

    fn keep(&self, machine: Machine) -> Arc<Machine> {
        let machine = Arc::new(machine);
        lock(&self.made).machine = Some(Arc::clone(&machine));
        machine
    }

    /// Takes in what a machine that has ended sent before: the log's end, and perhaps a result.
    async fn read_rest(&self) {
        let drained = lock(&self.made).card.as_ref().map(NetworkCard::drained);
        let rest = async {
            if let Some(drained) = drained {
                // The card reads what is left in its socket, and ends its connections.
                drained.cancelled().await;
            }
            self.beginning.service.log_idle().await;
        };
        let _ = tokio::time::timeout(REST_TIMEOUT, rest).await;
    }

    /// The capture file, if the description has one. Waits for the reader of a FIFO.
    async fn pcap(&self) -> Result<Option<Pcap>, MachineError> {
        let job = &self.beginning.job;
        let Some(path) = job.hardware.pcap.clone() else { return Ok(None) };
        let file = open(OutputField::Pcap, path.clone()).await?;
        let (events, limit) = (self.beginning.events.clone(), job.limits.pcap);
        let full = move || {
            events.send(Event::LimitReached { output: OutputField::Pcap, path, limit });
        };
        Ok(Some(Pcap::new(Slow(file)).limit(limit, full)))
    }

    /// The file that records what the guest tries, if the job has one. What another attempt to
    /// start the machine has recorded is removed.
    async fn network_log(&self) -> Result<Option<LogFile>, MachineError> {
        let Beginning { job, history, .. } = &self.beginning;
        let Some(path) = job.hardware.network.log().map(PathBuf::from).or_else(|| {
            // Not for jobs whose guest is not expected to try anything.
            let history = history.as_ref().filter(|_| !job.hardware.network.is_none());
            history.map(|directory| directory.join(NETWORK_LOG))
        }) else {
            return Ok(None);
        };
        let output = OutputField::NetworkLog;
        let file = match block(|| output::open_record(&path)) {
            Ok(Some(file)) => file,
            Ok(None) => return Err(MachineError::NotAFile { output, path }),
            Err(cause) => return Err(MachineError::Output { output, path, cause }),
        };
        let (events, limit) = (self.beginning.events.clone(), job.limits.network_log);
        Ok(Some(LogFile::new(file, limit).on_end(move |end| {
            events.send(match end {
                LogEnd::Failed(cause) => Event::OutputFailed { output, path, cause },
                _ => Event::LimitReached { output, path, limit },
            });
        })))
    }

    fn with_cgroup(&self, spec: MachineSpec) -> MachineSpec {
        match &self.beginning.cgroup {
            Some(directory) => spec.cgroup(directory),
            None => spec,
        }
    }

    /// The machine writes its console to a file, if the description has one. Waits for the reader
    /// of a FIFO.
    async fn with_console(&self, spec: MachineSpec) -> Result<MachineSpec, MachineError> {
        let Some(path) = &self.beginning.job.hardware.console else { return Ok(spec) };
        Ok(spec.console_log(open(OutputField::Console, path.clone()).await?))
    }

    /// Reports that the console's file has reached its limit.
    async fn watch_console(&self, machine: &Machine) -> std::convert::Infallible {
        let job = &self.beginning.job;
        if let Some(path) = job.hardware.console.clone() {
            machine.console().log_ended().await;
            let (output, limit) = (OutputField::Console, job.limits.console);
            self.beginning.events.send(Event::LimitReached { output, path, limit });
        }
        std::future::pending().await
    }
}

/// Says when the machine is paused, so that this time does not count as silence of its guest.
async fn follow_pauses(
    mut states: watch::Receiver<MachineState>,
    service: &MetaService,
) -> std::convert::Infallible {
    loop {
        service.machine_paused(*states.borrow_and_update() == MachineState::Paused);
        if states.changed().await.is_err() {
            // The machine has ended.
            std::future::pending::<()>().await;
        }
    }
}

async fn open(output: OutputField, path: PathBuf) -> Result<std::fs::File, MachineError> {
    tracing::debug!(%output, path = %path.display(), "opening a file to write to");
    let opened = path.clone();
    let opened = tokio::task::spawn_blocking(move || output::open_output(&opened)).await;
    let opened = opened.map_err(io::Error::from).and_then(|opened| opened);
    opened.map_err(|cause| MachineError::Output { output, path, cause })
}

/// A file whose writes may wait for a reader: they do not hold up other tasks.
struct Slow(std::fs::File);

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        block(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use metaservice::Contact;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_guest_of_a_paused_machine_is_not_silent() {
        const POLL: &[u8] = b"GET /engine/v1/poll HTTP/1.1\r\nHost: a\r\n\r\n";
        let service = MetaService::builder(["true"]).start().unwrap();
        let (mut guest, host) = tokio::io::duplex(4096);
        let served = service.clone();
        tokio::spawn(async move { served.serve_connection(host).await });
        guest.write_all(POLL).await.unwrap();
        assert_eq!(service.contact_changed(Contact::Awaited).await, Contact::Present);
        guest.read_u8().await.unwrap();
        let (states, receiver) = watch::channel(MachineState::Paused);
        let story = async {
            let answered = Instant::now();
            tokio::time::sleep(Duration::from_secs(3600)).await;
            assert_eq!(service.contact(), Contact::Present);
            states.send_replace(MachineState::Running);
            assert_eq!(service.contact_changed(Contact::Present).await, Contact::Silent);
            assert_eq!(answered.elapsed().as_secs(), 3600 + 60);
        };
        tokio::select! {
            () = story => {}
            never = follow_pauses(receiver, &service) => match never {},
        }
    }
}
