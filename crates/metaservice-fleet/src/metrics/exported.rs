//! The metrics with their names.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::condition::{Condition, Readiness};
use super::counts::{Count, LOSSES, MACHINES, QUEUE_RESULTS, RESULTS, Word};
use super::depths::Depth;
use crate::name::WorkerName;
use crate::worker::idle::Reason;

/// The upper ends of the histograms, in seconds.
const WAITS: [f64; 10] = [0.1, 0.5, 1., 5., 15., 60., 300., 1800., 7200., 43_200.];
const DISPATCHES: [f64; 9] = [0.1, 0.25, 0.5, 1., 2.5, 5., 10., 30., 60.];
const RUNS: [f64; 9] = [1., 5., 15., 60., 300., 900., 3600., 14_400., 86_400.];

type Labels<const N: usize> = [(Word, Word); N];

/// All metrics of a worker.
#[derive(Debug)]
pub(super) struct Exported {
    registry: Registry,
    waiting: Family<[(Word, String); 2], Gauge>,
    queue_results: Family<Labels<2>, Counter>,
    queue_lost: Family<Labels<1>, Counter>,
    running: Gauge,
    wait: Histogram,
    machines: Family<Labels<1>, Counter>,
    dispatch: Histogram,
    run: Histogram,
    results: Family<Labels<1>, Counter>,
    lost: Family<Labels<1>, Counter>,
    log: Counter,
    artifacts: Counter,
    ready: Gauge,
    lease: Gauge,
    renewal: Gauge<f64, AtomicU64>,
    draining: Gauge,
    idle: Family<Labels<1>, Gauge>,
}

impl Exported {
    pub(super) fn new(worker: &WorkerName, slots: u32) -> Self {
        let exported = Self {
            registry: Registry::with_prefix("metaservice"),
            waiting: Family::default(),
            queue_results: Family::default(),
            queue_lost: Family::default(),
            running: Gauge::default(),
            wait: Histogram::new(WAITS),
            machines: Family::default(),
            dispatch: Histogram::new(DISPATCHES),
            run: Histogram::new(RUNS),
            results: Family::default(),
            lost: Family::default(),
            log: Counter::default(),
            artifacts: Counter::default(),
            ready: Gauge::default(),
            lease: Gauge::default(),
            renewal: Gauge::default(),
            draining: Gauge::default(),
            idle: Family::default(),
        };
        exported.begin_at_zero();
        let info = [("worker", worker.to_string()), ("version", env!("CARGO_PKG_VERSION").into())];
        exported.registered(Info::new(info), slots)
    }

    /// A series that is not there until its first event hides that event from `rate`.
    fn begin_at_zero(&self) {
        for (kind, cause) in QUEUE_RESULTS {
            let _ = self.queue_results.get_or_create(&[("result", kind), ("cause", cause)]);
        }
        for kind in RESULTS {
            let _ = self.results.get_or_create(&[("result", kind)]);
        }
        for start in MACHINES {
            let _ = self.machines.get_or_create(&[("start", start)]);
        }
        for cause in LOSSES {
            let _ = self.lost.get_or_create(&[("cause", cause)]);
            // Only a worker knows what it dropped.
            if cause != "dropped" {
                let _ = self.queue_lost.get_or_create(&[("cause", cause)]);
            }
        }
    }

    fn registered(mut self, info: Info<[(Word, String); 2]>, slots: u32) -> Self {
        let slot_count: Gauge = Gauge::default();
        slot_count.set(i64::from(slots));
        let r = &mut self.registry;
        let second = || Unit::Seconds;
        r.register("queue_waiting_jobs", "Jobs of the queue that wait", self.waiting.clone());
        r.register(
            "queue_results",
            "Jobs of the queue that ended at any worker since this one began",
            self.queue_results.clone(),
        );
        r.register(
            "queue_lost_attempts",
            "Attempts that were lost at any worker since this one began",
            self.queue_lost.clone(),
        );
        r.register("worker", "The worker", info);
        r.register("worker_slots", "How many jobs it runs at once", slot_count);
        r.register("worker_running_jobs", "Jobs that run here", self.running.clone());
        let text = "From the time when a job could run to its claim";
        r.register_with_unit("worker_wait", text, second(), self.wait.clone());
        let text = "Machines that attempts got";
        r.register("worker_machines", text, self.machines.clone());
        let text = "From the claim to the first output";
        r.register_with_unit("worker_dispatch", text, second(), self.dispatch.clone());
        let text = "From the claim to the result";
        r.register_with_unit("worker_run", text, second(), self.run.clone());
        r.register("worker_results", "Results that it wrote", self.results.clone());
        r.register("worker_lost_attempts", "Its attempts without a result", self.lost.clone());
        let text = "Logs of its results";
        r.register_with_unit("worker_log", text, Unit::Bytes, self.log.clone());
        let text = "Artifacts of its results";
        r.register_with_unit("worker_artifact", text, Unit::Bytes, self.artifacts.clone());
        r.register("worker_ready", "Whether it takes jobs", self.ready.clone());
        let text = "Whether a server confirms its lease";
        r.register("worker_lease_confirmed", text, self.lease.clone());
        let text = "Since the last renewal of its lease that a server confirmed";
        r.register_with_unit("worker_renewal_age", text, second(), self.renewal.clone());
        r.register("worker_draining", "Whether it ends", self.draining.clone());
        let text = "Whether it takes no job for this reason";
        r.register("worker_blocked", text, self.idle.clone());
        self
    }

    pub(super) fn add(&self, count: Count) {
        match count {
            Count::Began(waited) => {
                self.running.inc();
                self.wait.observe(waited.as_secs_f64());
            }
            Count::Started(start) => {
                self.machines.get_or_create(&[("start", start)]).inc();
            }
            Count::Output(after) => self.dispatch.observe(after.as_secs_f64()),
            Count::Result { kind, ran, log, artifacts } => {
                self.running.dec();
                self.run.observe(ran.as_secs_f64());
                self.results.get_or_create(&[("result", kind)]).inc();
                self.log.inc_by(log);
                self.artifacts.inc_by(artifacts);
            }
            Count::Lost(cause) => {
                self.running.dec();
                self.lost.get_or_create(&[("cause", cause)]).inc();
            }
            Count::QueueResult(kind, cause) => {
                self.queue_results.get_or_create(&[("result", kind), ("cause", cause)]).inc();
            }
            Count::QueueLost(cause) => {
                self.queue_lost.get_or_create(&[("cause", cause)]).inc();
            }
        }
    }

    /// The text of a scrape. `renewal`: since the last confirmed renewal, if there was one.
    pub(super) fn text(
        &self,
        depths: Vec<Depth>,
        condition: Condition,
        renewal: Option<Duration>,
        idle: Option<Reason>,
    ) -> String {
        for reason in Reason::ALL {
            let gauge = self.idle.get_or_create(&[("reason", reason.word())]);
            gauge.set(i64::from(idle == Some(reason)));
        }
        for Depth { tenant, class, jobs } in depths {
            let labels = [("tenant", tenant), ("priority", class.to_owned())];
            self.waiting.get_or_create(&labels).set(jobs);
        }
        self.ready.set(i64::from(condition.readiness() == Readiness::Ready));
        self.lease.set(i64::from(renewal.is_some() && !condition.is_cut && !condition.is_down));
        self.draining.set(i64::from(condition.is_draining));
        self.renewal.set(renewal.map_or(f64::NAN, |age| age.as_secs_f64()));
        let mut text = String::new();
        // A `String` takes all.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
