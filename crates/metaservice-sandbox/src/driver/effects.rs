//! How the driver performs each effect of the life.

use std::sync::Arc;
use std::time::Instant;

use super::{Driver, Message};
use crate::attempt::{Attempt, Beginning, Restored};
use crate::collect::{self, Missing};
use crate::event::{Event, RestoreError};
use crate::life::{Collected, Effect, End, Input, KillReason, Outcome, Start};
use crate::place::Place;

impl Driver {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Start(start) => self.start(start),
            Effect::CopyIn => self.copy_in(),
            Effect::StopCopyingIn => {
                if let Some(copying) = self.copying_in.take() {
                    copying.abort();
                }
            }
            Effect::KillCommand(reason) => self.kill(reason),
            Effect::Collect => self.collect(),
            Effect::StopCollecting => {
                if let Some(collecting) = self.collecting.take() {
                    collecting.abort();
                }
            }
            Effect::Keep(period) => self.keep(period),
            Effect::Close => {
                let service = self.parts.service.clone();
                self.spawn(async move { Some(Message::Closed(service.shutdown().await)) });
            }
            Effect::KillMachine => self.kill_machine(),
            Effect::EndMachine { at_once } => self.end_machine(at_once),
            // `run` performs it.
            Effect::Finish(_) => {}
        }
    }

    fn start(&mut self, start: Start) {
        if let Place::Elsewhere { .. } = &self.parts.place {
            self.report_event(Event::Waiting);
            // Its deadline begins at once.
            return self.life.handle(Input::MachineStarted, Instant::now());
        }
        let failed = self.attempt.take();
        match &failed {
            None => self.report_event(Event::Starting),
            Some(failed) => self.give_up(failed),
        }
        let Place::Machine { describer, individual, network, warm, cgroup, disk } =
            &mut self.parts.place
        else {
            return;
        };
        self.attempts += 1;
        let number = self.attempts;
        let disk = disk.as_ref().map(|prepared| prepared.disk.clone());
        let history = self.parts.recorder.as_ref().map(|recorder| recorder.claim.path());
        let sender = self.sender.clone();
        self.attempt = Some(Attempt::begin(Beginning {
            start,
            failed,
            describer: Arc::clone(describer),
            individual: (**individual).clone(),
            warm: warm.take(),
            cgroup: cgroup.clone(),
            job: Arc::clone(&self.parts.job),
            service: self.parts.service.clone(),
            network: network.clone(),
            history,
            disk,
            events: self.parts.events.clone(),
            report: Box::new(move |attempted| {
                let _ = sender.send(Message::Attempt(number, attempted));
            }),
        }));
    }

    /// Says why a restored machine is unusable, and removes its snapshot if that may be at fault.
    fn give_up(&mut self, failed: &Attempt) {
        let gone = self.exit.take().map(RestoreError::Ended);
        let Some(Restored { snapshot, error }) = failed.take_restored() else { return };
        let error = error.or(gone).unwrap_or(RestoreError::Silent);
        let Place::Machine { describer, .. } = &self.parts.place else { return };
        // The host may be at fault, and the snapshot of an image is not made by itself.
        if describer.plan().image.is_none() || error.is_of_snapshot() {
            snapshot.remove();
        }
        self.report_event(Event::RestoreFailed(error));
    }

    fn kill(&mut self, reason: KillReason) {
        self.report_event(Event::Killing { reason, log: self.log.clone() });
        let service = self.parts.service.clone();
        self.spawn(async move {
            let killed = match reason {
                KillReason::Timeout => service.time_out().await,
                KillReason::Signal(_)
                | KillReason::CopyIn { .. }
                | KillReason::LogFailed { .. } => service.kill().await,
            };
            // A result follows.
            Some(killed.map_or_else(Message::KillFailed, |()| Message::KillTaken))
        });
    }

    fn kill_machine(&mut self) {
        if let Some(Outcome { end: End::Forced(force), .. }) = self.life.outcome() {
            self.report_event(Event::Forced(force));
        }
        let (machine, waiting) = (self.machine(), self.parts.forces.take_waiting());
        self.spawn(async move {
            if let Some(machine) = machine {
                machine.kill().await;
            }
            // The clients have their answers now.
            drop(waiting);
            None
        });
    }

    fn collect(&mut self) {
        let (job, service) = (Arc::clone(&self.parts.job), self.parts.service.clone());
        let success = service.try_result().is_some_and(|result| result.success)
            && self.life.outcome().is_some_and(|outcome| outcome.end == End::Result);
        if !job.artifacts_on.wants(success) {
            self.missing = Missing { count: 0, exceeds: false };
            return self.handle(Input::Collected(Collected::All));
        }
        let mut progress = std::mem::take(&mut self.parts.progress);
        let events = self.parts.events.clone();
        let fetching = async move {
            let report = |news| {
                events.send(match news {
                    collect::News::Fetching(artifact) => Event::Fetching(artifact),
                    collect::News::Fetched { artifact, length } => {
                        Event::Fetched { artifact, length }
                    }
                    collect::News::NotFetched { artifact, error } => {
                        Event::NotFetched { artifact, error }
                    }
                });
            };
            let missing = collect::run(&job, &service, &mut progress, report).await;
            Some(Message::Collected { missing, progress })
        };
        self.collecting = Some(self.spawn(fetching));
    }

    /// Persists the status, ends the machine and serves the clients' last requests. `at_once`: the
    /// guest is not waited for.
    fn end_machine(&mut self, at_once: bool) {
        let outcome = self.life.outcome();
        let report = self.report(outcome);
        if let (End::Result, Some(result)) = (report.outcome.end, &report.result) {
            self.report_event(Event::Ended(result.clone()));
        }
        let progress = self.parts.progress.ended(report.status()).err();
        let success = report.status() == 0;
        let machine = self.machine();
        let served = match &self.parts.place {
            Place::Elsewhere { served, .. } => Some(served.clone()),
            Place::Machine { .. } => self.attempt.as_ref().and_then(Attempt::served),
        };
        let served = served.filter(|_| !at_once);
        let power_off = self.parts.place.power_off(success).filter(|_| !at_once);
        let (control, events) = (self.parts.control.take(), self.parts.events.clone());
        self.spawn(async move {
            if let Some(served) = served {
                // The guest's last request gets its answer.
                served.cancelled().await;
            }
            let exit = match (machine, power_off) {
                (None, _) => None,
                (Some(machine), None) => Some(machine.kill().await),
                (Some(machine), Some(timeout)) => {
                    events.send(Event::PoweringOff);
                    Some(machine.power_down(timeout).await)
                }
            };
            if let Some(control) = control {
                control.end().await;
            }
            Some(Message::MachineEnded { exit, progress })
        });
    }
}
