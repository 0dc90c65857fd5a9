//! What clients do, which faults there are, and how a worker starts.

use std::collections::BTreeMap;

use metaservice_sandbox::spec::JobSpec;
use rand::RngExt;

use super::server::EPOCH;
use super::{Event, Happening, World};
use crate::name::JobId;
use crate::request::Request;
use crate::state::CANCELLATION;
use crate::step::{Change, WorkerState};

impl World {
    /// A client submits the job, or cancels it if it is there.
    pub(super) fn client(&mut self, job: usize) {
        let id: JobId = format!("j{job}").parse().unwrap();
        let (number, change) = match self.server.jobs.get(&id) {
            Some(job) if job.outcome().is_some() || job.is_cancelled => return,
            Some(_) if self.random.random_bool(0.5) => (CANCELLATION, Change::Cancelled),
            _ => (0, Change::Submitted(Box::new(self.request(job)))),
        };
        self.count += 1;
        self.server.write(self.time, &id, number, self.count, &change);
        self.announce();
    }

    fn request(&mut self, job: usize) -> Request {
        let mut request = Request::new(JobSpec::new(["true"]));
        request.tenant = format!("t{}", job % 2).parse().unwrap();
        request.attempts = u32::try_from(self.draw(1, 4)).unwrap();
        let now = EPOCH + self.time;
        request.not_before = (self.draw(0, 4) == 0).then(|| now + self.draw(0, 60_000));
        request.deadline = (self.draw(0, 4) == 0).then(|| now + self.draw(0, 90_000));
        request
    }

    pub(super) fn fault(&mut self) {
        let host = usize::try_from(self.draw(0, self.hosts.len() as u64)).unwrap();
        let length = self.draw(0, 40_000);
        let until = self.time + length;
        if !self.hosts[host].is_alive {
            return;
        }
        match self.draw(0, 4) {
            0 => self.hosts[host].cut_until = until,
            1 if self.hosts[host].paused_until <= self.time => {
                self.hosts[host].paused_until = until;
                self.happen(host, length, Happening::Continue);
            }
            2 => {
                self.hosts[host].end();
                self.after(length, Event::Start(host));
            }
            _ => {
                self.hosts[host].is_draining = true;
                self.hosts[host].decider.drain();
                self.happen(host, 20_000, Happening::Release);
                self.after(length + 60_000, Event::Start(host));
            }
        }
    }

    pub(super) fn start(&mut self, host: usize) {
        if self.hosts[host].is_alive {
            // One that drains is started again later.
            if self.hosts[host].is_draining {
                self.after(1_000, Event::Start(host));
            }
            return;
        }
        if self.is_cut(host) {
            return self.after(1_000, Event::Start(host));
        }
        let time = self.time;
        self.hosts[host].start(time);
        let renewal = self.hosts[host].renewal(WorkerState::Ready);
        // The bucket has the last renewal of each worker.
        let last: BTreeMap<_, _> =
            self.server.leases.iter().map(|(at, lease)| (lease.worker.clone(), *at)).collect();
        for (at, lease) in &self.server.leases {
            if last[&lease.worker] == *at {
                self.hosts[host].decider.lease(std::time::Duration::ZERO, *at, lease.clone());
            }
        }
        let read = (self.server.steps.len(), self.server.leases.len());
        self.hosts[host].read.1 = read.1;
        self.server.leases.push((EPOCH + time, renewal));
        self.read(host, read);
        self.announce();
        self.happen(host, 5_000, Happening::Renew);
        self.turn(host, false);
    }
}
