//! The faults of a run, from a seed, and what carries them out.

use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use tokio::time::Instant;

use super::fake::now;
use super::process::{Part, Process};
use super::servers::{Cluster, One, readers_miss_nothing};

/// Longer than a lease.
const STOPPED: u64 = 20_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill,
    /// Ends a kill.
    Start,
    Stop,
    /// Ends a stop.
    Continue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Worker(usize),
    Server(usize),
}

/// The faults in the order of their times, in milliseconds. Each fault has its end in it. One server
/// at a time has a fault.
pub(crate) fn plan(
    seed: u64,
    horizon: u64,
    workers: usize,
    servers: usize,
) -> Vec<(u64, Target, Fault)> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut faults = Vec::new();
    for number in 0..workers {
        let mut time = random.random_range(2_000..8_000);
        let mut stops = number % 2 == 0;
        while time < horizon {
            // The run does not wait long for a worker that is stopped at its end.
            stops &= time + STOPPED < horizon + STOPPED / 2;
            let takes = if stops { STOPPED } else { random.random_range(300..2_000) };
            add(&mut faults, time, takes, Target::Worker(number), stops);
            time += takes + random.random_range(3_000..12_000);
            stops = random.random_ratio(1, 3);
        }
    }
    let mut time = 4_000;
    let mut stops = false;
    while time < horizon {
        let takes = random.random_range(500..if stops { 14_000 } else { 4_000 });
        add(&mut faults, time, takes, Target::Server(random.random_range(0..servers)), stops);
        time += takes + random.random_range(4_000..8_000);
        stops = !stops;
    }
    faults.sort_by_key(|(time, ..)| *time);
    faults
}

fn add(faults: &mut Vec<(u64, Target, Fault)>, time: u64, takes: u64, target: Target, stops: bool) {
    let (begin, end) =
        if stops { (Fault::Stop, Fault::Continue) } else { (Fault::Kill, Fault::Start) };
    faults.extend([(time, target, begin), (time + takes, target, end)]);
}

/// The servers of a run.
pub(crate) enum Servers {
    One(One),
    Cluster(Cluster),
}

impl Servers {
    fn suffer(&mut self, number: usize, fault: Fault) {
        match (self, fault) {
            (Self::One(one), Fault::Kill) => one.kill(),
            (Self::One(one), Fault::Start) => one.revive(),
            (Self::One(one), Fault::Stop) => one.pause(),
            (Self::One(one), Fault::Continue) => one.resume(),
            (Self::Cluster(cluster), _) if !readers_miss_nothing() => match fault {
                Fault::Kill | Fault::Stop => cluster.end(number),
                Fault::Start | Fault::Continue => cluster.revive(number),
            },
            (Self::Cluster(cluster), Fault::Kill) => cluster.kill(number),
            (Self::Cluster(cluster), Fault::Start) => cluster.revive(number),
            (Self::Cluster(cluster), Fault::Stop) => cluster.pause(number),
            (Self::Cluster(cluster), Fault::Continue) => cluster.resume(number),
        }
    }
}

/// When workers were killed and stopped, by their names.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) kills: HashMap<String, Vec<u64>>,
    /// From when to when.
    pub(crate) stops: HashMap<String, Vec<(u64, u64)>>,
}

/// Carries out the faults.
pub(crate) async fn suffer(
    faults: Vec<(u64, Target, Fault)>,
    servers: &mut Servers,
    parts: &[Part],
    workers: &mut [Process],
) -> Record {
    let began = Instant::now();
    let mut record = Record::default();
    for (time, target, fault) in faults {
        tokio::time::sleep_until(began + Duration::from_millis(time)).await;
        if let (Servers::Cluster(cluster), Target::Server(_), Fault::Kill | Fault::Stop) =
            (&*servers, target, fault)
        {
            // A server that still catches up has a fault.
            cluster.whole().await;
        }
        eprintln!("{} {target:?} {fault:?}", now());
        match (target, fault) {
            (Target::Server(number), fault) => servers.suffer(number, fault),
            (Target::Worker(number), fault) => {
                let (part, worker) = (&parts[number], &mut workers[number]);
                attack(part, worker, fault, &mut record).await;
            }
        }
    }
    record
}

async fn attack(part: &Part, worker: &mut Process, fault: Fault, record: &mut Record) {
    let name = part.name.clone();
    match fault {
        Fault::Kill => {
            worker.kill().await;
            record.kills.entry(name).or_default().push(now());
        }
        Fault::Start => *worker = part.start(),
        Fault::Stop => {
            record.stops.entry(name).or_default().push((now(), u64::MAX));
            worker.signal(Signal::STOP);
        }
        Fault::Continue => {
            worker.signal(Signal::CONT);
            record.stops.get_mut(&name).unwrap().last_mut().unwrap().1 = now();
        }
    }
}
