use std::collections::BTreeSet;

use metaservice_sandbox::spec::JobSpec;

use super::*;
use crate::request::Request;
use crate::state::Stored;
use crate::step::{Capacity, Change};
use crate::tenants::TenantLimits;

const NOW: ServerTime = 100_000;

fn job(change: impl FnOnce(&mut Request)) -> JobState {
    let mut request = Request::new(JobSpec::new(["true"]));
    request.spec.machine.memory.0 = 1 << 30;
    change(&mut request);
    let at = Stored { number: 0, sequence: 1, time: NOW };
    JobState::submitted(at, Change::Submitted(Box::new(request))).unwrap()
}

fn needs(all: &[&str]) -> JobState {
    let all: BTreeSet<_> = all.iter().map(|need| (*need).to_owned()).collect();
    job(|request| request.require = all)
}

/// A worker with one slot, 2 GiB for machines, and a host of 8 GiB and 4 processors.
fn worker(name: &str, change: impl FnOnce(&mut Renewal)) -> Renewal {
    let mut worker = Renewal {
        worker: name.parse().unwrap(),
        run: name.parse().unwrap(),
        slots: 1,
        running: 0,
        warm: 0,
        state: WorkerState::Ready,
        labels: BTreeSet::from(["kvm".to_owned()]),
        version: String::new(),
        reason: None,
        capacity: Some(Capacity { memory: 2 << 30, host_memory: 8 << 30, processors: 4 }),
    };
    change(&mut worker);
    worker
}

fn crew(workers: impl IntoIterator<Item = Renewal>) -> Crew {
    let mut crew = Crew::default();
    workers.into_iter().for_each(|worker| crew.renewed(NOW, worker));
    crew
}

fn of(job: &JobState, crew: &Crew) -> Option<Reason> {
    why(job, crew, TenantUse::default(), NOW)
}

#[test]
fn a_job_waits_for_a_worker_with_a_lease() {
    let (job, none) = (job(|_| {}), crew([]));
    assert_eq!(of(&job, &none), Some(Reason::NoWorker));
    assert_eq!(next_change(&job, &none, NOW), None);
    let mut one = crew([worker("w", |_| {})]);
    assert_eq!(of(&job, &one), None, "a worker is about to take it");
    let end = NOW + 15_000;
    assert_eq!(next_change(&job, &one, NOW), Some(end));
    assert_eq!(why(&job, &one, TenantUse::default(), end - 1), None);
    assert_eq!(why(&job, &one, TenantUse::default(), end), Some(Reason::NoWorker));
    one.renewed(NOW, worker("w", |worker| worker.state = WorkerState::Draining));
    assert_eq!(of(&job, &one), Some(Reason::Draining));
    one.renewed(NOW, worker("w", |worker| worker.state = WorkerState::Gone));
    assert_eq!(of(&job, &one), Some(Reason::NoWorker));
}

#[test]
fn what_no_worker_has_is_named() {
    let list =
        |all: &[&str]| Some(Reason::Needs(all.iter().map(|need| need.parse().unwrap()).collect()));
    let arm = |worker: &mut Renewal| worker.labels = BTreeSet::from(["arm".to_owned()]);
    let two = crew([worker("a", |_| {}), worker("b", arm)]);
    assert_eq!(of(&needs(&["kvm"]), &two), None);
    assert_eq!(of(&needs(&["kvm", "gpu"]), &two), list(&["gpu"]));
    assert_eq!(of(&needs(&["mem=9G", "cpus=5", "kvm"]), &two), list(&["cpus=5", "mem=9G"]));
    assert_eq!(of(&needs(&["mem=8G", "cpus=4", "kvm"]), &two), None);
    assert_eq!(of(&needs(&["arm", "kvm"]), &two), list(&["arm", "kvm"]), "no one has both");
    // A worker of an earlier version does not say what its host has.
    let old = crew([worker("old", |worker| worker.capacity = None)]);
    assert_eq!(of(&needs(&["mem=9G", "cpus=5"]), &old), None);
}

#[test]
fn memory_counts_of_the_workers_that_have_the_rest() {
    let large = |worker: &mut Renewal| {
        worker.labels = BTreeSet::new();
        worker.capacity.as_mut().unwrap().memory = 64 << 30;
    };
    let two = crew([worker("a", |_| {}), worker("b", large)]);
    let with = |memory: u64, need: &str| {
        job(|request| {
            request.spec.machine.memory.0 = memory;
            request.require = BTreeSet::from([need.to_owned()]);
        })
    };
    assert_eq!(of(&with(2 << 30, "kvm"), &two), None);
    assert_eq!(of(&with(64 << 30, "cpus=1"), &two), None);
    let too_large = Reason::TooLarge { memory: (2 << 30) + 1, largest: 2 << 30 };
    assert_eq!(of(&with((2 << 30) + 1, "kvm"), &two), Some(too_large));
    // Only the small worker is free, and the job does not fit there.
    let busy = crew([
        worker("a", |_| {}),
        worker("b", |worker| {
            large(worker);
            worker.running = 1;
        }),
    ]);
    assert_eq!(of(&with(3 << 30, "cpus=1"), &busy), Some(Reason::Busy));
}

#[test]
fn slots_and_what_the_hosts_have_left() {
    let (job, full) = (job(|_| {}), |worker: &mut Renewal| worker.running = 1);
    let reason = |word: &'static str| move |worker: &mut Renewal| worker.reason = Some(word.into());
    assert_eq!(of(&job, &crew([worker("a", full)])), Some(Reason::Busy));
    assert_eq!(of(&job, &crew([worker("a", full), worker("b", |_| {})])), None);
    let disk = crew([worker("a", full), worker("b", reason("disk"))]);
    assert_eq!(of(&job, &disk), Some(Reason::Disk));
    let memory = crew([worker("a", reason("memory")), worker("b", reason("disk"))]);
    assert_eq!(of(&job, &memory), Some(Reason::Memory));
    let tenant = TenantUse {
        running: 2,
        waiting: 1,
        limits: TenantLimits { running: Some(2), waiting: None },
    };
    let free = crew([worker("a", |_| {})]);
    assert_eq!(why(&job, &free, tenant, NOW), Some(Reason::Tenant { limit: 2 }));
    assert_eq!(why(&job, &free, TenantUse { running: 1, ..tenant }, NOW), None);
}

#[test]
fn times_of_the_job_come_before_workers() {
    let none = crew([]);
    let later = job(|request| request.not_before = Some(NOW + 5));
    assert_eq!(of(&later, &none), Some(Reason::NotBefore(NOW + 5)));
    assert_eq!(next_change(&later, &none, NOW), Some(NOW + 5));
    let late = job(|request| request.deadline = Some(NOW));
    assert_eq!(of(&late, &none), Some(Reason::NoWorker));
    assert_eq!(next_change(&late, &none, NOW), Some(NOW + 1));
    assert_eq!(why(&late, &none, TenantUse::default(), NOW + 1), Some(Reason::Late));
    let mut lost = job(|_| {});
    let at = |number| Stored { number, sequence: 2, time: NOW };
    let (w, cause) = ("w", LostCause::Machine);
    let claimed = Change::Claimed { worker: w.parse().unwrap(), run: w.parse().unwrap() };
    lost.apply(at(1), Some(claimed));
    assert_eq!(of(&lost, &none), None, "it runs");
    lost.apply(at(2), Some(Change::Lost { cause, message: "no room".to_owned() }));
    let (until, message) = (NOW + 1000, "no room".to_owned());
    assert_eq!(of(&lost, &none), Some(Reason::Pause { until, cause, message }));
    assert_eq!(why(&lost, &none, TenantUse::default(), until), Some(Reason::NoWorker));
    lost.apply(at(3), None);
    assert_eq!(of(&lost, &none), None, "a later version knows");
}
