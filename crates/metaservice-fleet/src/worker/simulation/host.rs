//! A worker process of the simulation, with a clock and a network of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::decide::{Capacity, Decider, Stop};
use super::Event;
use crate::name::{JobId, RunId, WorkerName};
use crate::requirement::Features;
use crate::step::{Change, Renewal, WorkerState};

pub(super) struct Host {
    pub(super) name: WorkerName,
    pub(super) run: RunId,
    /// Which life this is.
    pub(super) life: u64,
    pub(super) is_alive: bool,
    pub(super) is_draining: bool,
    began: u64,
    /// How fast its clock is, in millionths of the real one.
    rate: u64,
    pub(super) cut_until: u64,
    pub(super) paused_until: u64,
    /// What has happened while it was paused.
    pub(super) inbox: Vec<Event>,
    pub(super) decider: Decider,
    pub(super) read: (usize, usize),
    pub(super) machines: BTreeMap<(JobId, u32), Machine>,
    /// The writes that no answer came for.
    pub(super) writing: BTreeSet<u64>,
    pub(super) wakes: u64,
}

/// An attempt of a job.
pub(super) struct Machine {
    /// The number of its next step.
    pub(super) number: u32,
    /// Whether the machine is there.
    pub(super) runs: bool,
    pub(super) stop: Option<Stop>,
    pub(super) finishing: Option<Change>,
    /// When its worker has seen that the job is cancelled.
    pub(super) cancelled: Option<u64>,
}

impl Host {
    pub(super) fn new(number: usize, rate: u64) -> Self {
        let name: WorkerName = format!("w{number}").parse().unwrap();
        let run: RunId = "none".parse().unwrap();
        let decider = Self::decider(&name, &run);
        Self {
            name,
            run,
            life: 0,
            is_alive: false,
            is_draining: false,
            began: 0,
            rate,
            cut_until: 0,
            paused_until: 0,
            inbox: Vec::new(),
            decider,
            read: (0, 0),
            machines: BTreeMap::new(),
            writing: BTreeSet::new(),
            wakes: 0,
        }
    }

    fn decider(name: &WorkerName, run: &RunId) -> Decider {
        let capacity = Capacity {
            slots: 2,
            features: Features::default(),
            memory: u64::MAX,
            min_free_disk: 0,
        };
        Decider::new(name.clone(), run.clone(), capacity)
    }

    /// A new life.
    pub(super) fn start(&mut self, time: u64) {
        self.life += 1;
        self.run = format!("{}-{}", self.name, self.life).parse().unwrap();
        self.decider = Self::decider(&self.name, &self.run);
        (self.is_alive, self.is_draining, self.began) = (true, false, time);
        self.read = (0, 0);
    }

    /// The end of a life, with all that it has.
    pub(super) fn end(&mut self) {
        self.is_alive = false;
        self.machines.clear();
        self.inbox.clear();
        self.writing.clear();
        self.paused_until = 0;
    }

    pub(super) fn renewal(&self, state: WorkerState) -> Renewal {
        Renewal {
            worker: self.name.clone(),
            run: self.run.clone(),
            slots: 2,
            running: 0,
            warm: 0,
            state,
            labels: BTreeSet::new(),
            version: String::new(),
            reason: None,
            capacity: None,
        }
    }

    /// What its clock says then.
    pub(super) fn clock(&self, time: u64) -> Duration {
        Duration::from_micros((time - self.began) * self.rate / 1000)
    }

    /// How long a duration of its clock is.
    pub(super) fn real(&self, duration: Duration) -> u64 {
        let micros = u64::try_from(duration.as_micros()).unwrap();
        micros * 1000 / self.rate + 1
    }
}
