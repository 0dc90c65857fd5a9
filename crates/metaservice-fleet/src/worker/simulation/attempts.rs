//! The attempts of the simulation: their machines, and their last steps.

use super::super::decide::{Answer, Stop};
use super::host::Machine;
use super::{Happening, KILL, NOTICE, World};
use crate::name::JobId;
use crate::state::CANCELLATION;
use crate::step::{Change, LostCause, Outcome};
use crate::view::Due;

impl World {
    pub(super) fn begin(&mut self, host: usize, id: &JobId, attempt: u32, number: u32) {
        let time = self.time;
        for other in &self.hosts {
            let runs = other.machines.iter().any(|((of, _), machine)| of == id && machine.runs);
            let is_paused = other.paused_until > 0 && time < other.paused_until + KILL + NOTICE;
            assert!(!runs || is_paused, "{id} runs twice at {time}: also on {}", other.name);
        }
        let claim = self.server.place(id, number - 1);
        let cancellation = self.server.place(id, CANCELLATION);
        let is_first = cancellation.is_none_or(|place| claim.is_some_and(|claim| claim < place));
        assert!(is_first, "{id} starts after a cancellation");
        let machine = Machine { number, runs: true, stop: None, finishing: None, cancelled: None };
        self.hosts[host].machines.insert((id.clone(), attempt), machine);
        let length = if self.draw(0, 4) == 0 { 60_000 } else { 5_000 };
        let length = self.draw(0, length);
        self.happen(host, length, Happening::Finished(id.clone(), attempt));
    }

    pub(super) fn stop(&mut self, host: usize, id: &JobId, stop: Stop) {
        let delay = self.draw(0, KILL - 100);
        let machines = &mut self.hosts[host].machines;
        let last = machines.iter_mut().rfind(|((of, _), _)| of == id);
        let Some(((_, attempt), machine)) = last else { return };
        let attempt = *attempt;
        machine.stop = Some(stop);
        if machine.runs {
            self.happen(host, delay, Happening::Killed(id.clone(), attempt));
        }
    }

    pub(super) fn finished(&mut self, host: usize, id: JobId, attempt: u32) {
        let status = u8::try_from(self.draw(0, 256)).unwrap();
        let key = (id, attempt);
        let Some(machine) = self.hosts[host].machines.get_mut(&key) else { return };
        if !machine.runs || machine.stop.is_some() {
            return;
        }
        machine.runs = false;
        let outcome = Outcome::Finished { status, log: 0, log_object: None, artifacts: Vec::new() };
        machine.finishing = Some(Change::Ended(outcome));
        if self.is_troubled(10) {
            let (cause, message) = (LostCause::Machine, String::new());
            let machine = self.hosts[host].machines.get_mut(&key).unwrap();
            machine.finishing = Some(Change::Lost { cause, message });
        }
        self.conclude(host, &key.0, attempt);
    }

    pub(super) fn killed(&mut self, host: usize, id: JobId, attempt: u32) {
        let (time, at) = (self.time, &mut self.hosts[host]);
        let (key, paused) = ((id, attempt), at.paused_until);
        let Some(machine) = at.machines.get_mut(&key).filter(|machine| machine.runs) else {
            return;
        };
        if let Some(seen) = machine.cancelled {
            assert!(time <= seen.max(paused) + KILL, "{} runs after a cancellation", key.0);
        }
        machine.runs = false;
        machine.finishing = match machine.stop {
            Some(Stop::Cancelled) => Some(Change::Ended(Outcome::Cancelled)),
            Some(Stop::Released) => {
                Some(Change::Lost { cause: LostCause::Released, message: String::new() })
            }
            _ => return self.over(host, &key.0, attempt),
        };
        self.conclude(host, &key.0, attempt);
    }

    fn over(&mut self, host: usize, id: &JobId, attempt: u32) {
        self.hosts[host].machines.remove(&(id.clone(), attempt));
        self.hosts[host].decider.ended(id, attempt);
    }

    /// Writes the last step of an attempt.
    pub(super) fn conclude(&mut self, host: usize, id: &JobId, attempt: u32) {
        let machine = &self.hosts[host].machines[&(id.clone(), attempt)];
        let change = machine.finishing.clone().unwrap();
        let due = Due { id: id.clone(), number: machine.number, change };
        self.write(host, due, Some(attempt));
    }

    pub(super) fn concluded(
        &mut self,
        host: usize,
        due: Due,
        attempt: u32,
        answer: Answer,
        other: Option<&Change>,
    ) {
        let key = (due.id.clone(), attempt);
        let machine = self.hosts[host].machines.get_mut(&key).unwrap();
        match answer {
            Answer::Other if other == Some(&Change::Cancelled) => {
                machine.number += 1;
                return self.conclude(host, &due.id, attempt);
            }
            Answer::Unknown if machine.stop != Some(Stop::Dropped) => {
                return self.happen(host, 500, Happening::Again(due.id, attempt));
            }
            Answer::Own if matches!(due.change, Change::Ended(_)) => {
                assert!(self.results.insert(due.id.clone()), "two results of {}", due.id);
            }
            _ => {}
        }
        self.over(host, &due.id, attempt);
    }
}
