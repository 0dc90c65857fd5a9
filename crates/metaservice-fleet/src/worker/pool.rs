//! The warm machines of a worker, and the task that starts and ends them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use metaservice_private::lock;
use metaservice_sandbox::machine::snapshot::{self, SnapshotError};
use metaservice_sandbox::machine::{WarmError, WarmKind, WarmMachine};
use metaservice_sandbox::spec::{JobSpec, Size};
use metaservice_sandbox::{Builder, StartError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::chain::chain;
use super::events::Events;
use super::memory;
use super::stock::{Order, Stock};
use super::types::{Event, Warm};
use crate::moment::at;

/// How long to wait before a kind of machine is tried again that did not start.
const RETRY: Duration = Duration::from_secs(60);

/// When the memory of a machine is measured again after its start: its agent has rehearsed then.
const REHEARSED: Duration = Duration::from_secs(10);

/// Why a warm machine does not start.
#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error(transparent)]
    Prepare(#[from] StartError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Start(#[from] WarmError),
    #[error("cannot read what the machine takes")]
    Measure(#[from] io::Error),
}

/// The warm machines. A clone hands out the same ones.
#[derive(Clone)]
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    stock: Stock<WarmKind>,
    machines: HashMap<u64, WarmMachine>,
}

impl Pool {
    /// Keeps these machines, until the handle is dropped. It starts one at a time.
    pub(super) fn start(wanted: Vec<Warm>, events: Events) -> (Self, AbortOnDropHandle<()>) {
        let stock = Stock::new(wanted.iter().map(|warm| warm.count));
        let state = Mutex::new(State { stock, machines: HashMap::new() });
        let pool = Self(Arc::new(Shared { state, changed: Notify::new() }));
        let keeper = Keeper { pool: pool.clone(), wanted, events };
        (pool, AbortOnDropHandle::new(tokio::spawn(keeper.run())))
    }

    /// Hands out a machine of this kind, if one waits.
    pub(super) fn take(&self, kind: &WarmKind) -> Option<WarmMachine> {
        let mut state = lock(&self.0.state);
        let number = state.stock.take(kind, Instant::now());
        self.0.changed.notify_one();
        state.machines.remove(&number?)
    }

    /// What all warm machines may take, in bytes. More are ended.
    pub(super) fn set_budget(&self, bytes: u64) {
        if lock(&self.0.state).stock.set_budget(bytes) {
            self.0.changed.notify_one();
        }
    }

    /// The number of machines that wait.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(lock(&self.0.state).stock.count()).unwrap_or(u32::MAX)
    }
}

/// Starts and ends the machines of a pool.
struct Keeper {
    pool: Pool,
    wanted: Vec<Warm>,
    events: Events,
}

impl Keeper {
    async fn run(self) {
        let (mut ends, mut rehearsals) = (FuturesUnordered::new(), FuturesUnordered::new());
        // When to try again what did not start. Other changes do not put it off.
        let mut retry: Option<Instant> = None;
        loop {
            let (order, hold) = {
                let (stock, now) = (&mut lock(&self.pool.0.state).stock, Instant::now());
                (stock.order(now), stock.held_until(now))
            };
            match order {
                Some(Order::End(number)) => self.end(number),
                Some(Order::Start(shelf)) => match self.fill(shelf).await {
                    Ok((number, end)) => {
                        ends.push(async move {
                            end.await;
                            number
                        });
                        rehearsals.push(async move {
                            sleep(REHEARSED).await;
                            number
                        });
                    }
                    Err(error) => {
                        self.failed(shelf, &error);
                        retry.get_or_insert_with(|| Instant::now() + RETRY);
                    }
                },
                None => tokio::select! {
                    () = self.pool.0.changed.notified() => {}
                    () = at(hold) => {}
                    Some(number) = ends.next() => self.end(number),
                    Some(number) = rehearsals.next() => self.measure(number),
                    () = at(retry) => {
                        retry = None;
                        lock(&self.pool.0.state).stock.try_again();
                    }
                },
            }
        }
    }

    fn end(&self, number: u64) {
        let mut state = lock(&self.pool.0.state);
        state.stock.ended(number);
        state.machines.remove(&number);
    }

    /// Measures a machine that waits again.
    fn measure(&self, number: u64) {
        let process = |state: &State| state.machines.get(&number).map(WarmMachine::process_id);
        let process = process(&lock(&self.pool.0.state));
        if let Some(Ok(bytes)) = process.map(memory::of) {
            lock(&self.pool.0.state).stock.measured(number, bytes);
        }
    }

    /// Starts a machine. Returns its number and its end.
    async fn fill(
        &self,
        shelf: usize,
    ) -> Result<(u64, impl Future<Output = ()> + Send + use<>), FillError> {
        let spec = self.wanted.get(shelf).map_or_else(|| JobSpec::new(["true"]), Warm::spec);
        let prepared = Builder::from_spec(spec).prepare().await?;
        let machine = match prepared.warm_up().await {
            Err(WarmError::NoSnapshot) => {
                snapshot::make(prepared.plan(), true).await?;
                prepared.warm_up().await
            }
            started => started,
        }?;
        let bytes = memory::of(machine.process_id())?;
        let end = machine.ended();
        let mut state = lock(&self.pool.0.state);
        let (number, old) = state.stock.started(shelf, machine.kind().clone(), bytes);
        for old in old {
            state.machines.remove(&old);
        }
        state.machines.insert(number, machine);
        Ok((number, end))
    }

    fn failed(&self, shelf: usize, error: &FillError) {
        lock(&self.pool.0.state).stock.failed(shelf);
        let image = self.wanted.get(shelf).and_then(|warm| warm.image.clone());
        let message = chain(error);
        self.events.tell(Event::NotWarm { image, message });
    }
}

impl Warm {
    /// A job that such a machine fits.
    fn spec(&self) -> JobSpec {
        let mut spec = JobSpec::new(["true"]);
        spec.machine.image = self.image.as_ref().map(Into::into);
        if let Some(memory) = self.memory {
            spec.machine.memory = Size(memory);
        }
        if let Some(cpus) = self.cpus {
            spec.machine.cpus = cpus;
        }
        spec
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_does_not_start_is_tried_again_whatever_else_changes() {
        let (sender, mut events) = mpsc::unbounded_channel();
        let image = Some("no-such-image".to_owned());
        let wanted = vec![Warm { image, memory: None, cpus: None, count: 1 }];
        let (pool, _keeper) = Pool::start(wanted, Events::from(sender));
        let began = Instant::now();
        let changes = async {
            for budget in 1..60 {
                pool.set_budget(budget);
                tokio::time::sleep(RETRY / 10).await;
            }
        };
        let tries = async {
            for _ in 0..3 {
                assert!(matches!(events.recv().await, Some(Event::NotWarm { .. })));
            }
        };
        tokio::select! {
            () = changes => {}
            () = tries => {}
        }
        assert!(began.elapsed() < RETRY * 3, "{:?}", began.elapsed());
    }
}
