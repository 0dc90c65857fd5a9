//! Clients, workers, servers and the network between them, in one process on simulated time.
//!
//! A seed decides all that happens: how long messages are on their way and which are lost, how fast
//! the clock of each worker is, which worker is cut off, killed, paused for longer than its lease or
//! drained, what clients submit and cancel. `METASERVICE_SEED` runs one seed again,
//! `METASERVICE_SEEDS` so many of them.
//!
//! After each run: each job that was accepted has one result, no two machines ran one job at once,
//! no machine ran on after its worker saw a cancellation, and all readers know the same.

mod attempts;
mod course;
mod host;
mod server;

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::host::Host;
use self::server::{EPOCH, Server};
use super::decide::{Answer, Order, Stop};
use super::idle::Left;
use crate::name::JobId;
use crate::step::{Renewal, WorkerState};
use crate::view::{Due, RENEWAL, View};

/// Faults happen in this time, in milliseconds.
const FAULTS: u64 = 120_000;

/// All jobs end in this time.
const END: u64 = 1_500_000;

/// How long workers may need to notice that.
const SETTLE: u64 = 60_000;

/// The longest time that killing a machine takes.
const KILL: u64 = 2_000;

/// How long a worker that was paused may need to notice it.
const NOTICE: u64 = 300;

/// A server that has not answered by now is asked who wrote the step.
const TIMEOUT: u64 = 5_000;

/// How often a step is sent.
const TRIES: u32 = 3;

#[derive(Debug, Clone)]
enum Event {
    Client(usize),
    Fault,
    Start(usize),
    /// All that happens to a life of a worker.
    Host(usize, u64, Happening),
    /// A step arrives at the server.
    Step(u64),
    /// A renewal arrives at the server.
    Renewal(usize, u64, Renewal, std::time::Duration),
}

#[derive(Debug, Clone)]
enum Happening {
    Renew,
    Wake(u64),
    Continue,
    /// So many steps and leases are readable.
    Arrive(usize, usize),
    Confirmed(std::time::Duration),
    /// The answer to a step may be there, or its time is over.
    Answer(u64, bool),
    /// The machine ends by itself.
    Finished(JobId, u32),
    /// The machine is killed.
    Killed(JobId, u32),
    Again(JobId, u32),
    Release,
}

/// A step on its way.
struct Write {
    host: usize,
    life: u64,
    due: Due,
    tries: u32,
    /// The attempt whose last step it is.
    attempt: Option<u32>,
}

struct World {
    random: StdRng,
    time: u64,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    server: Server,
    hosts: Vec<Host>,
    writes: BTreeMap<u64, Write>,
    results: BTreeSet<JobId>,
    trace: u64,
    /// When all jobs had ended.
    settled: Option<u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let workers = random.random_range(1..4);
        let hosts = (0..workers).map(|n| Host::new(n, random.random_range(990_000..=1_010_000)));
        let hosts: Vec<_> = hosts.collect();
        let mut world = Self {
            random,
            time: 0,
            events: BTreeMap::new(),
            count: 0,
            server: Server::default(),
            hosts,
            writes: BTreeMap::new(),
            results: BTreeSet::new(),
            trace: 0,
            settled: None,
        };
        for host in 0..world.hosts.len() {
            let after = world.draw(0, 5_000);
            world.after(after, Event::Start(host));
            world.after(FAULTS, Event::Start(host));
        }
        for job in 0..world.draw(1, 12) {
            for _ in 0..world.draw(1, 4) {
                let after = world.draw(0, FAULTS);
                world.after(after, Event::Client(usize::try_from(job).unwrap()));
            }
        }
        for _ in 0..world.draw(0, 8) {
            let after = world.draw(0, FAULTS);
            world.after(after, Event::Fault);
        }
        world
    }

    fn draw(&mut self, from: u64, to: u64) -> u64 {
        self.random.random_range(from..to)
    }

    fn is_troubled(&mut self, one_of: u64) -> bool {
        self.time < FAULTS && self.draw(0, one_of) == 0
    }

    /// How long a message is on its way.
    fn delay(&mut self) -> u64 {
        if self.is_troubled(20) { self.draw(100, 8_000) } else { self.draw(1, 100) }
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.count += 1;
        self.events.insert((self.time + delay, self.count), event);
    }

    fn happen(&mut self, host: usize, delay: u64, what: Happening) {
        let life = self.hosts[host].life;
        self.after(delay, Event::Host(host, life, what));
    }

    fn is_cut(&self, host: usize) -> bool {
        self.time < self.hosts[host].cut_until
    }

    fn run(&mut self) {
        while let Some(((time, _), event)) = self.events.pop_first() {
            if time > END {
                break;
            }
            self.time = time;
            if time > FAULTS && self.server.jobs.values().all(|job| job.outcome().is_some()) {
                let settled = *self.settled.get_or_insert(time) + SETTLE;
                if time > settled {
                    break;
                }
            }
            self.trace = self.trace.wrapping_mul(31).wrapping_add(time);
            match event {
                Event::Client(job) => self.client(job),
                Event::Fault => self.fault(),
                Event::Start(host) => self.start(host),
                Event::Host(host, life, what) => self.host(host, life, what),
                Event::Step(write) => self.step(write),
                Event::Renewal(host, life, renewal, sent) => {
                    self.server.leases.push((EPOCH + time, renewal));
                    self.announce();
                    let delay = self.delay();
                    if !self.is_troubled(10) {
                        self.after(delay, Event::Host(host, life, Happening::Confirmed(sent)));
                    }
                }
            }
        }
        self.judge();
    }

    /// Tells all readers what there is.
    fn announce(&mut self) {
        let (steps, leases) = (self.server.steps.len(), self.server.leases.len());
        for host in 0..self.hosts.len() {
            let delay = self.delay();
            self.happen(host, delay, Happening::Arrive(steps, leases));
        }
    }

    fn read(&mut self, host: usize, (steps, leases): (usize, usize)) {
        let (time, host) = (self.time, &mut self.hosts[host]);
        let now = host.clock(time);
        while host.read.0 < steps {
            let (id, at, change) = &self.server.steps[host.read.0];
            host.decider.take(now, id, *at, Some(change.clone()));
            host.read.0 += 1;
            let job = host.decider.view().job(id);
            for ((of, attempt), machine) in &mut host.machines {
                let is_own = job.is_some_and(|job| job.is_run_by(&host.run, *attempt));
                if of == id && is_own && job.is_some_and(|job| job.is_cancelled) {
                    machine.cancelled.get_or_insert(time);
                }
            }
        }
        while host.read.1 < leases {
            let (at, renewal) = self.server.leases[host.read.1].clone();
            host.decider.lease(now, at, renewal);
            host.read.1 += 1;
        }
    }

    fn host(&mut self, host: usize, life: u64, what: Happening) {
        let time = self.time;
        let at = &mut self.hosts[host];
        if !at.is_alive || at.life != life {
            return;
        }
        if time < at.paused_until {
            return at.inbox.push(Event::Host(host, life, what));
        }
        match what {
            Happening::Renew => self.renew(host),
            Happening::Wake(wake) if wake != at.wakes => return,
            Happening::Wake(_) => return self.turn(host, true),
            Happening::Continue => {
                for event in std::mem::take(&mut at.inbox) {
                    let delay = self.draw(0, 100);
                    self.after(delay, event);
                }
                return;
            }
            Happening::Arrive(..) if time < at.cut_until => {
                let delay = at.cut_until - time + 1;
                return self.happen(host, delay, what);
            }
            Happening::Arrive(steps, leases) => self.read(host, (steps, leases)),
            Happening::Confirmed(_) if time < at.cut_until => {}
            Happening::Confirmed(sent) => {
                at.decider.confirmed(sent);
            }
            Happening::Answer(write, is_over) => self.answer(host, write, is_over),
            Happening::Finished(id, attempt) => self.finished(host, id, attempt),
            Happening::Killed(id, attempt) => self.killed(host, id, attempt),
            Happening::Again(id, attempt) => self.conclude(host, &id, attempt),
            Happening::Release if at.is_draining => at.decider.stop_all(Stop::Released),
            Happening::Release => {}
        }
        let is_cut = self.random.random_bool(0.5);
        self.turn(host, is_cut);
    }

    fn renew(&mut self, host: usize) {
        let at = &self.hosts[host];
        let (sent, life) = (at.clock(self.time), at.life);
        let renewal = at.renewal(WorkerState::Ready);
        let next = at.real(RENEWAL);
        self.happen(host, next, Happening::Renew);
        if !self.is_cut(host) && !self.is_troubled(10) {
            let delay = self.delay();
            self.after(delay, Event::Renewal(host, life, renewal, sent));
        }
    }

    /// One turn of the worker's loop. Which of several things comes first is no one's choice.
    fn turn(&mut self, host: usize, may_cut: bool) {
        let at = &mut self.hosts[host];
        let now = at.clock(self.time);
        if may_cut && at.decider.cut_at().is_some_and(|cut| cut <= now) {
            at.decider.cut();
        }
        at.decider.advance(now, Left::UNKNOWN);
        for order in self.hosts[host].decider.orders() {
            match order {
                Order::Write(due) => self.write(host, due, None),
                Order::Begin(begin) => self.begin(host, &begin.id, begin.attempt, begin.next),
                Order::Stop(id, stop) => self.stop(host, &id, stop),
            }
        }
        let at = &mut self.hosts[host];
        if at.is_draining
            && at.machines.is_empty()
            && at.writing.is_empty()
            && !at.decider.has_claims()
        {
            let gone = at.renewal(WorkerState::Gone);
            at.end();
            self.server.leases.push((EPOCH + self.time, gone));
            return self.announce();
        }
        at.wakes += 1;
        let wake = at.wakes;
        let cut = at.decider.cut_at().map(|cut| cut.saturating_sub(now));
        let quiet = cut.into_iter().chain(at.decider.quiet(now)).min();
        if let Some(quiet) = quiet {
            let delay = at.real(quiet) + self.draw(0, 50);
            self.happen(host, delay, Happening::Wake(wake));
        }
    }

    fn write(&mut self, host: usize, due: Due, attempt: Option<u32>) {
        let life = self.hosts[host].life;
        self.count += 1;
        let write = self.count;
        self.hosts[host].writing.insert(write);
        self.writes.insert(write, Write { host, life, due, tries: 0, attempt });
        self.send(write);
    }

    fn send(&mut self, write: u64) {
        let host = self.writes[&write].host;
        if !self.is_cut(host) && !self.is_troubled(10) {
            let delay = self.delay();
            self.after(delay, Event::Step(write));
        }
        self.happen(host, TIMEOUT, Happening::Answer(write, true));
    }

    /// A step arrives. Its writer may have given up, or be dead.
    fn step(&mut self, write: u64) {
        let Write { host, life, ref due, .. } = self.writes[&write];
        self.server.write(self.time, &due.id, due.number, write, &due.change);
        self.announce();
        let delay = self.delay();
        if !self.is_troubled(10) {
            self.after(delay, Event::Host(host, life, Happening::Answer(write, false)));
        }
    }

    /// The writer looks up who wrote the step.
    fn answer(&mut self, host: usize, write: u64, is_over: bool) {
        if !self.hosts[host].writing.contains(&write) || (self.is_cut(host) && !is_over) {
            return;
        }
        let is_cut = self.is_cut(host);
        let sent = self.writes.get_mut(&write).unwrap();
        let found = self.server.step(&sent.due.id, sent.due.number).filter(|_| !is_cut);
        let other = found.map(|(_, change)| change.clone());
        let answer = match found {
            Some((writer, _)) if *writer == write => Answer::Own,
            Some(_) => Answer::Other,
            None => {
                sent.tries += 1;
                if sent.tries < TRIES {
                    return self.send(write);
                }
                Answer::Unknown
            }
        };
        let (due, attempt) = (sent.due.clone(), sent.attempt);
        self.hosts[host].writing.remove(&write);
        match attempt {
            Some(attempt) => self.concluded(host, due, attempt, answer, other.as_ref()),
            None => {
                let now = self.hosts[host].clock(self.time);
                self.hosts[host].decider.wrote(now, due, answer);
            }
        }
    }

    fn judge(&self) {
        let mut client = View::of_client();
        for (id, at, change) in &self.server.steps {
            client.apply(std::time::Duration::ZERO, id, *at, Some(change.clone()));
        }
        for (id, job) in &self.server.jobs {
            assert!(job.outcome().is_some(), "{id} has no end: {job:?}");
            assert_eq!(client.job(id), Some(job));
        }
        for host in &self.hosts {
            assert!(host.machines.is_empty(), "{} has machines", host.name);
            let known = host.decider.view().jobs().count();
            assert!(!host.is_alive || known == 0, "{} waits", host.name);
        }
    }
}

/// Runs one seed, and returns a digest of when things happened.
fn run(seed: u64) -> u64 {
    let ran = std::panic::catch_unwind(|| {
        let mut world = World::new(seed);
        world.run();
        world.trace
    });
    ran.unwrap_or_else(|_| panic!("METASERVICE_SEED={seed} fails"))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn whatever_happens_each_job_has_one_result() {
    let seeds = match number("METASERVICE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("METASERVICE_SEEDS").unwrap_or(2000),
    };
    for seed in seeds {
        run(seed);
    }
}

#[test]
fn a_seed_goes_the_same_way_each_time() {
    let traces: BTreeSet<u64> = (0..20).map(run).collect();
    assert_eq!(traces.len(), 20);
    assert_eq!((0..20).map(run).collect::<BTreeSet<_>>(), traces);
}
