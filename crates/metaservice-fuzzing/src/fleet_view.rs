//! What a queue holds: any steps, renewals and limits, in any order, folded into the views of a
//! worker and of a client. A job has at most one result, no view grows beyond what the queue holds,
//! and nothing is due for a job of a later version.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::typed::steps_of;
use arbitrary::Arbitrary;
use metaservice_fleet::fuzzing;
use metaservice_fleet::name::{JobId, RunId};
use metaservice_fleet::requirement::Features;
use metaservice_fleet::state::{CANCELLATION, JobState};
use metaservice_fleet::step::{Change, LostCause, Outcome};
use metaservice_fleet::view::{Due, Seeker, View};

/// The time of the server at the start, in milliseconds.
const EPOCH: u64 = 1_800_000_000_000;

#[derive(Debug, Arbitrary)]
enum Event {
    /// A message in the bucket of jobs, at the number that is next, or at another one.
    Step { job: u8, number: Option<u8>, content: Content },
    /// A client cancels.
    Cancel { job: u8, content: Vec<u8> },
    /// A message with any subject.
    Strange { subject: String, content: Vec<u8> },
    /// A message in the bucket of leases.
    Renewal { worker: u8, run: u8, state: u8 },
    /// Another message there.
    RawRenewal { worker: u8, content: Vec<u8> },
    /// A message in the bucket of tenants.
    Limits { tenant: u8, content: Vec<u8> },
    /// What a tenant may run.
    Limit { tenant: u8, running: Option<u8> },
    /// Time passes, in milliseconds.
    Wait(u16),
    /// The worker does what is due, or fails to.
    Act { written: bool },
    /// The worker claims a job.
    Claim,
}

#[derive(Debug, Arbitrary)]
enum Content {
    Submitted {
        tenant: u8,
        attempts: u8,
        start: Option<u16>,
        deadline: Option<u16>,
        label: bool,
    },
    Claimed {
        worker: u8,
        run: u8,
    },
    Finished(u8),
    Cancelled,
    Expired,
    Lost(u8),
    /// The result of a later version.
    LaterOutcome(String),
    /// A kind of change of a later version.
    LaterChange(String),
    /// A change in any form.
    Change(String),
    Raw(Vec<u8>),
}

fn run_name(number: u8) -> String {
    // The first is this worker's.
    format!("r{}", number % 4)
}

impl Content {
    fn json(&self) -> Vec<u8> {
        use serde_json::{Value, json};
        let losses = ["lease", "released", "machine", "output", "refused", "later"];
        let change = match self {
            Self::Submitted { tenant, attempts, start, deadline, label } => {
                let mut request = json!({
                    "spec": { "version": 1, "command": ["true"], "machine": { "memory": "64M" } },
                    "tenant": format!("t{}", tenant % 3),
                    "attempts": attempts % 4,
                });
                let time = |after: &u16| json!(EPOCH + u64::from(*after));
                if let Some(start) = start {
                    request["notBefore"] = time(start);
                }
                if let Some(deadline) = deadline {
                    request["deadline"] = time(deadline);
                }
                if *label {
                    request["require"] = json!(["kvm"]);
                }
                json!({ "submitted": request })
            }
            Self::Claimed { worker, run: number } => {
                let worker = format!("w{}", worker % 3);
                json!({ "claimed": { "worker": worker, "run": run_name(*number) } })
            }
            Self::Finished(status) => {
                json!({ "ended": { "finished": { "status": status, "log": 0 } } })
            }
            Self::Cancelled => json!("cancelled"),
            Self::Expired => json!("expired"),
            Self::Lost(cause) => {
                json!({ "lost": { "cause": losses[usize::from(*cause) % losses.len()] } })
            }
            Self::LaterOutcome(name) => json!({ "ended": { name: {} } }),
            Self::LaterChange(name) => json!({ name: {} }),
            Self::Change(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            Self::Raw(bytes) => return bytes.clone(),
        };
        json!({ "version": 1, "nonce": "n", "change": change }).to_string().into_bytes()
    }
}

struct Queue {
    worker: View,
    client: View,
    now: Duration,
    sequence: u64,
    /// The subjects of jobs that have a message. The server takes each once.
    taken: BTreeSet<String>,
    ids: BTreeSet<JobId>,
    workers: BTreeSet<String>,
    results: BTreeMap<JobId, Outcome>,
}

impl Queue {
    fn new() -> Self {
        let own: RunId = run_name(0).parse().expect("a name");
        Self {
            worker: View::of_worker(own, Duration::ZERO),
            client: View::of_client(),
            now: Duration::ZERO,
            sequence: 0,
            taken: BTreeSet::new(),
            ids: BTreeSet::new(),
            workers: BTreeSet::new(),
            results: BTreeMap::new(),
        }
    }

    fn time(&self) -> u64 {
        EPOCH + u64::try_from(self.now.as_millis()).expect("a short time")
    }

    fn step(&mut self, subject: &str, content: &[u8]) {
        if !self.taken.insert(subject.to_owned()) {
            return;
        }
        self.sequence += 1;
        let Some(step) = fuzzing::step(subject, content, self.sequence, self.time()) else {
            return;
        };
        let before = self.client.job(&step.id).cloned();
        self.ids.insert(step.id.clone());
        for view in [&mut self.worker, &mut self.client] {
            view.apply(self.now, &step.id, step.at, step.change.clone());
        }
        if let (Some(before), Some(after)) = (before, self.client.job(&step.id)) {
            self.compare(&before, after);
        }
        if let Some(outcome) = self.client.job(&step.id).and_then(JobState::outcome) {
            let first = self.results.entry(step.id.clone()).or_insert_with(|| outcome.clone());
            assert_eq!(first, outcome, "a job has two results");
        }
    }

    fn compare(&self, before: &JobState, after: &JobState) {
        assert_eq!(before.request, after.request);
        assert!(before.next <= after.next && before.attempt <= after.attempt);
        assert!(after.used <= after.request.attempts && after.used <= after.attempt);
        assert!(!before.is_cancelled || after.is_cancelled);
    }

    fn due(&self) -> Vec<Due> {
        let own: RunId = run_name(0).parse().expect("a name");
        let lost = || Change::Lost { cause: LostCause::Lease, message: String::new() };
        let mut due = self.worker.due(self.now);
        due.extend(self.worker.due_of_run(&own, |_| false, lost));
        for due in &due {
            self.may_write(&due.id, due.number);
        }
        due
    }

    fn may_write(&self, id: &JobId, number: u32) {
        let job = self.worker.job(id).expect("it is in the view");
        assert!(!job.is_of_later_version() && job.outcome().is_none());
        assert!(job.next == number && number != CANCELLATION);
    }

    fn choose(&self) -> Option<(JobId, u32)> {
        let features = Features::default();
        let seeker = Seeker { features: &features, memory: 1 << 30 };
        let (id, job) = self.worker.choose(self.now, seeker)?;
        self.may_write(&id, job.next);
        assert!(features.meet(&job.request.require));
        let _ = self.worker.has_pausing(self.now, seeker);
        Some((id, job.next))
    }

    /// Writes what the worker decided, as the server would store it.
    fn write(&mut self, id: &JobId, number: u32, change: &Change, written: bool) {
        self.worker.tried(id, number);
        assert!(self.due().iter().all(|due| due.id != *id), "a step is tried once");
        if !written {
            self.worker.not_written(id);
            return;
        }
        let step = serde_json::json!({ "version": 1, "nonce": "n", "change": change });
        self.step(&format!("$KV.ms_jobs.job.{id}.{number}"), step.to_string().as_bytes());
    }

    fn renewal(&mut self, name: &str, content: &[u8]) {
        let subject = format!("$KV.ms_leases.lease.{name}");
        let Some(renewal) = fuzzing::renewal(&subject, content) else { return };
        self.workers.insert(renewal.worker.to_string());
        for view in [&mut self.worker, &mut self.client] {
            let time = EPOCH + u64::try_from(self.now.as_millis()).expect("a short time");
            view.renewed(self.now, time, renewal.clone());
        }
    }

    fn limits(&mut self, tenant: u8, content: &[u8]) {
        let subject = format!("$KV.ms_tenants.tenant.t{}", tenant % 3);
        if let Some((tenant, limits)) = fuzzing::limits(&subject, content) {
            self.worker.limit(tenant.clone(), limits);
            self.client.limit(tenant, limits);
        }
    }

    fn event(&mut self, event: &Event) {
        let subject = |job: u8, number: &str| format!("$KV.ms_jobs.job.j{}.{number}", job % 5);
        match event {
            Event::Step { job, number, content } => {
                let id: JobId = format!("j{}", job % 5).parse().expect("a name");
                let next = self.client.job(&id).map_or(0, |job| job.next);
                let number = number.map_or(next, u32::from);
                self.step(&subject(*job, &number.to_string()), &content.json());
            }
            Event::Cancel { job, content } => self.step(&subject(*job, "cancel"), content),
            Event::Strange { subject, content } => self.step(subject, content),
            Event::Renewal { worker, run: number, state } => {
                let states = ["ready", "draining", "gone", "later"];
                let name = format!("w{}", worker % 3);
                let json = serde_json::json!({
                    "worker": name, "run": run_name(*number), "slots": 1, "running": 0,
                    "state": states[usize::from(*state) % states.len()], "version": "1",
                });
                self.renewal(&name, json.to_string().as_bytes());
            }
            Event::RawRenewal { worker, content } => {
                self.renewal(&format!("w{}", worker % 3), content);
            }
            Event::Limits { tenant, content } => self.limits(*tenant, content),
            Event::Limit { tenant, running } => {
                let json = serde_json::json!({ "running": running });
                self.limits(*tenant, json.to_string().as_bytes());
            }
            Event::Wait(milliseconds) => self.now += Duration::from_millis((*milliseconds).into()),
            Event::Act { written } => {
                for due in self.due() {
                    // The step before may have changed it.
                    if self.worker.job(&due.id).is_some_and(|job| job.next == due.number) {
                        self.write(&due.id, due.number, &due.change, *written);
                    }
                }
            }
            Event::Claim => {
                if let Some((id, number)) = self.choose() {
                    let worker = "w0".parse().expect("a name");
                    let change =
                        Change::Claimed { worker, run: run_name(0).parse().expect("a name") };
                    self.write(&id, number, &change, true);
                }
            }
        }
    }

    /// What a view holds follows from the queue.
    fn check(&self) {
        for view in [&self.worker, &self.client] {
            assert!(view.jobs().count() <= self.ids.len());
            assert!(view.workers().count() <= self.workers.len());
            let running: u32 = view.tenants().values().map(|tenant| tenant.running).sum();
            let waiting: u32 = view.tenants().values().map(|tenant| tenant.waiting).sum();
            let open = view
                .jobs()
                .filter(|(_, job)| job.outcome().is_none() && !job.is_of_later_version());
            assert_eq!(open.count(), (running + waiting) as usize);
        }
        assert!(self.worker.jobs().all(|(_, job)| job.outcome().is_none()));
        assert!(self.client.unknown().all(|id| self.ids.contains(id)));
        for (id, job) in self.worker.jobs() {
            assert_eq!(self.client.job(id), Some(job), "two views differ");
        }
        let _ = self.worker.quiet(self.now);
    }
}

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(input: &[u8]) {
    let events: Vec<Event> = steps_of(input);
    let mut queue = Queue::new();
    for event in &events {
        queue.event(event);
        queue.due();
        queue.choose();
        queue.check();
    }
}
