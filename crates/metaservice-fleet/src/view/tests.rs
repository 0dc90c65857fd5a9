use std::sync::Arc;

use metaservice_sandbox::spec::JobSpec;
use proptest::prelude::*;

mod later;
mod limits;

use super::*;
use crate::request::{InvalidRequest, Request};
use crate::step::Outcome;

const HOUR: u64 = 3_600_000;

fn second(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn id(text: &str) -> JobId {
    text.parse().unwrap()
}

fn features() -> Features {
    let labels = BTreeSet::from(["kvm".to_owned(), "arch=x86_64".to_owned()]);
    Features { labels, memory: 8 << 30, processors: 4 }
}

struct Queue {
    view: View,
    sequence: u64,
    now: Duration,
}

impl Queue {
    fn new() -> Self {
        let view = View::of_worker("own".parse().unwrap(), Duration::ZERO);
        let mut queue = Self { view, sequence: 0, now: Duration::ZERO };
        queue.renew("own");
        queue
    }

    fn renew(&mut self, run: &str) {
        let renewal = Renewal {
            worker: run.parse().unwrap(),
            run: run.parse().unwrap(),
            slots: 1,
            running: 0,
            warm: 0,
            state: WorkerState::Ready,
            labels: BTreeSet::new(),
            version: String::new(),
            reason: None,
            capacity: None,
        };
        self.view.renewed(self.now, self.time(), renewal);
    }

    fn time(&self) -> u64 {
        HOUR + u64::try_from(self.now.as_millis()).unwrap()
    }

    fn submit(&mut self, name: &str, change: impl FnOnce(&mut Request)) {
        let mut request = Request::new(JobSpec::new(["true"]));
        change(&mut request);
        self.step(name, 0, Change::Submitted(Box::new(request)));
    }

    fn step(&mut self, name: &str, number: u32, change: Change) {
        self.sequence += 1;
        let at = Stored { number, sequence: self.sequence, time: self.time() };
        self.view.apply(self.now, &id(name), at, Some(change));
    }

    fn next(&mut self, name: &str, change: Change) {
        let number = self.view.job(&id(name)).unwrap().next;
        self.step(name, number, change);
    }

    fn claim(&mut self, name: &str, run: &str) {
        let (worker, run) = (run.parse().unwrap(), run.parse().unwrap());
        self.next(name, Change::Claimed { worker, run });
    }

    fn chosen(&self) -> Option<String> {
        let seeker = Seeker { features: &features(), memory: 2 << 30 };
        self.view.choose(self.now, seeker).map(|(id, _)| id.to_string())
    }
}

fn tenant(name: &str) -> impl FnOnce(&mut Request) {
    let tenant = name.parse().unwrap();
    move |request| request.tenant = tenant
}

#[test]
fn a_tenant_with_fewer_running_jobs_is_first_then_the_class_then_the_age() {
    let mut queue = Queue::new();
    queue.submit("a1", tenant("a"));
    queue.submit("a2", tenant("a"));
    queue.submit("low", |request| {
        request.tenant = "b".parse().unwrap();
        request.priority = Priority::Low;
    });
    queue.submit("b1", tenant("b"));
    assert_eq!(queue.chosen().unwrap(), "a1");
    queue.claim("a1", "x");
    assert_eq!(queue.chosen().unwrap(), "b1");
    queue.claim("b1", "x");
    assert_eq!(queue.chosen().unwrap(), "a2");
    queue.claim("a2", "x");
    assert_eq!(queue.chosen().unwrap(), "low");
}

#[test]
fn a_job_that_waits_again_is_behind_the_others() {
    let mut queue = Queue::new();
    queue.submit("a", |_| {});
    queue.submit("b", |_| {});
    queue.claim("a", "x");
    queue.next("a", Change::Lost { cause: LostCause::Released, message: String::new() });
    assert_eq!(queue.chosen().unwrap(), "b");
}

#[test]
fn labels_memory_and_the_time_decide_who_may_run_it() {
    let mut queue = Queue::new();
    queue.submit("arm", |request| request.require = BTreeSet::from(["arch=aarch64".to_owned()]));
    queue.submit("large", |request| request.spec.machine.memory.0 = 3 << 30);
    queue.submit("later", |request| request.not_before = Some(HOUR + 9_000));
    assert_eq!(queue.chosen(), None);
    queue.submit("kvm", |request| request.require = BTreeSet::from(["kvm".to_owned()]));
    assert_eq!(queue.chosen().unwrap(), "kvm");
    queue.claim("kvm", "own");
    queue.now = second(4);
    assert_eq!(queue.view.quiet(queue.now).unwrap(), Duration::from_millis(5001));
    queue.now = second(9);
    assert_eq!(queue.chosen().unwrap(), "later");
}

#[test]
fn requirements_are_read_when_the_job_enters_and_not_at_each_choice() {
    let mut queue = Queue::new();
    queue.submit("a", |request| request.require = BTreeSet::from(["mem=1G".to_owned()]));
    let job = queue.view.jobs.get_mut(&id("a")).unwrap();
    Arc::make_mut(&mut job.request).require = BTreeSet::from(["mem=999G".to_owned()]);
    assert_eq!(queue.chosen().unwrap(), "a");
}

#[test]
fn any_worker_takes_a_job_with_too_many_requirements_to_refuse_it() {
    let mut queue = Queue::new();
    let many = |count: u64| (0..count).map(|n| format!("mem={}", (9 << 40) + n)).collect();
    queue.submit("many", |request| request.require = many(64));
    assert_eq!(queue.chosen(), None);
    queue.submit("more", |request| request.require = many(65));
    assert_eq!(queue.chosen().unwrap(), "more");
    let refused = queue.view.job(&id("more")).unwrap().request.check();
    assert_eq!(refused, Err(InvalidRequest::Requirements(65)));
}

#[test]
fn a_lost_attempt_is_repeated_after_a_pause() {
    let mut queue = Queue::new();
    queue.submit("a", |_| {});
    queue.claim("a", "own");
    let lost = |cause| Change::Lost { cause, message: String::new() };
    queue.next("a", lost(LostCause::Machine));
    assert_eq!(queue.chosen(), None);
    let seeker = Seeker { features: &Features::default(), memory: 2 << 30 };
    assert!(queue.view.has_pausing(queue.now, seeker));
    assert_eq!(queue.view.quiet(queue.now).unwrap(), Duration::from_millis(1001));
    queue.now = second(1);
    assert!(!queue.view.has_pausing(queue.now, seeker));
    assert_eq!(queue.chosen().unwrap(), "a");
    queue.claim("a", "own");
    queue.next("a", lost(LostCause::Released));
    assert_eq!(queue.chosen().unwrap(), "a");
}

#[test]
fn a_deadline_that_has_passed_ends_a_waiting_job() {
    let mut queue = Queue::new();
    queue.submit("a", |request| request.deadline = Some(HOUR + 3_000));
    queue.now = second(4);
    assert_eq!(queue.chosen(), None);
    let due = queue.view.due(queue.now);
    assert_eq!(due, [Due { id: id("a"), number: 1, change: Change::Expired }]);
    queue.view.tried(&id("a"), 1);
    assert_eq!(queue.view.due(queue.now), []);
    queue.view.not_written(&id("a"));
    queue.next("a", Change::Expired);
    assert_eq!(queue.view.due(queue.now), []);
    assert_eq!(queue.view.jobs().count(), 0);
}

/// A step that a server stored with a clock that is a year ahead.
fn step_of_next_year(queue: &mut Queue) {
    queue.submit("other", |_| {});
    let at = Stored { number: 1, sequence: 99, time: queue.time() + 365 * 24 * HOUR };
    let (now, cancelled) = (queue.now, Some(Change::Cancelled));
    queue.view.apply(now, &id("other"), at, cancelled);
}

#[test]
fn one_wrong_time_of_a_server_ends_no_job() {
    let mut queue = Queue::new();
    queue.submit("a", |request| request.deadline = Some(2 * HOUR));
    step_of_next_year(&mut queue);
    assert_eq!((queue.view.due(queue.now), queue.chosen().as_deref()), (vec![], Some("a")));
    assert_eq!(queue.view.server_time(queue.now), queue.time());
}

#[test]
fn a_worker_that_starts_again_goes_by_its_own_renewal_and_not_by_old_steps() {
    let mut queue = Queue::new();
    queue.view = View::of_worker("own".parse().unwrap(), Duration::ZERO);
    queue.submit("a", |request| request.deadline = Some(2 * HOUR));
    step_of_next_year(&mut queue);
    assert_eq!(queue.view.due(queue.now), [], "the time is not known yet");
    queue.renew("own");
    assert_eq!((queue.view.due(queue.now), queue.chosen().as_deref()), (vec![], Some("a")));
    queue.now = second(3601);
    assert_eq!(queue.view.due(queue.now).len(), 1);
}

#[test]
fn a_clock_that_goes_wrong_and_right_again_leaves_nothing() {
    let mut queue = Queue::new();
    let renewal = queue.view.leases.renewals.values().next().unwrap().clone();
    let renew = |queue: &mut Queue, time| queue.view.renewed(queue.now, time, renewal.clone());
    let (right, wrong) = (queue.time(), queue.time() + 365 * 24 * HOUR);
    renew(&mut queue, wrong);
    assert_eq!(queue.view.server_time(queue.now), right, "one time is not believed");
    renew(&mut queue, wrong);
    assert_eq!(queue.view.server_time(queue.now), wrong);
    renew(&mut queue, right);
    assert_eq!(queue.view.server_time(queue.now), right);
}

#[test]
fn a_lease_ends_after_15_seconds_without_a_renewal() {
    let mut queue = Queue::new();
    queue.submit("a", |_| {});
    queue.claim("a", "other");
    for now in 1..15 {
        queue.now = second(now);
        queue.renew("own");
        assert_eq!(queue.view.due(queue.now), [], "{now}");
    }
    queue.now = second(15);
    let lost = Change::Lost { cause: LostCause::Lease, message: String::new() };
    let due = Due { id: id("a"), number: 2, change: lost };
    assert_eq!(queue.view.due(queue.now), [due]);
    queue.renew("other");
    assert_eq!(queue.view.due(queue.now), []);
}

#[test]
fn who_was_cut_off_judges_no_one_and_begins_anew() {
    let mut queue = Queue::new();
    queue.submit("a", |_| {});
    queue.claim("a", "other");
    queue.now = second(16);
    assert_eq!(queue.view.due(queue.now), [], "its own renewals did not come back");
    queue.renew("own");
    assert_eq!(queue.view.due(queue.now), [], "the other may have renewed meanwhile");
    for now in 17..31 {
        queue.now = second(now);
        queue.renew("own");
        assert_eq!(queue.view.due(queue.now), [], "{now}");
    }
    queue.now = second(31);
    assert_eq!(queue.view.due(queue.now).len(), 1);
}

#[test]
fn a_worker_never_judges_itself() {
    let mut queue = Queue::new();
    queue.submit("a", |_| {});
    queue.claim("a", "own");
    queue.now = second(60);
    queue.renew("own");
    queue.now = second(66);
    assert_eq!(queue.view.due(queue.now), []);
}

#[test]
fn a_life_without_jobs_is_forgotten_when_its_worker_starts_again() {
    let mut queue = Queue::new();
    let renewal = |run: &str| Renewal {
        worker: "w".parse().unwrap(),
        run: run.parse().unwrap(),
        slots: 1,
        running: 0,
        warm: 0,
        state: WorkerState::Ready,
        labels: BTreeSet::new(),
        version: String::new(),
        reason: None,
        capacity: None,
    };
    for number in 0..100 {
        let time = queue.time();
        queue.view.renewed(queue.now, time, renewal(&format!("r{number}")));
    }
    assert_eq!(queue.view.leases.seen.len(), 2);
    assert_eq!(queue.view.workers().count(), 2);
}

#[test]
fn only_a_client_keeps_ended_jobs() {
    let mut queue = Queue::new();
    queue.submit("a", |_| {});
    queue.next("a", Change::Cancelled);
    assert!(queue.view.job(&id("a")).is_none());
    queue.view = View::of_client();
    queue.submit("b", |_| {});
    queue.next("b", Change::Cancelled);
    let job = queue.view.job(&id("b")).unwrap();
    assert_eq!(job.outcome(), Some(&Outcome::Cancelled));
}

proptest! {
    /// The indexes are those that the jobs make.
    #[test]
    fn indexes_agree_with_the_jobs(
        steps in proptest::collection::vec((0_u8..4, 0_u8..5), 0..60),
    ) {
        let mut queue = Queue::new();
        queue.view.keeps_ended = true;
        for (name, kind) in steps {
            let name = format!("j{name}");
            if queue.view.job(&id(&name)).is_none() {
                queue.submit(&name, tenant(if kind == 0 { "a" } else { "b" }));
                continue;
            }
            match kind {
                0 | 1 => queue.claim(&name, "x"),
                2 => queue.next(&name, Change::Lost {
                    cause: LostCause::Released, message: String::new(),
                }),
                3 => queue.next(&name, Change::Cancelled),
                _ => queue.next(&name, Change::Ended(Outcome::Cancelled)),
            }
            let view = &queue.view;
            let count = |wanted: fn(&Phase) -> bool| {
                view.jobs().filter(|(_, job)| wanted(&job.phase)).count()
            };
            let waiting: usize = view.waiting.values().map(BTreeSet::len).sum();
            prop_assert_eq!(waiting, count(|phase| matches!(phase, Phase::Waiting { .. })));
            let running = count(|phase| matches!(phase, Phase::Running { .. }));
            prop_assert_eq!(view.running.len(), running);
            let tenants: u32 = view.tenants.running.values().sum();
            prop_assert_eq!(usize::try_from(tenants).unwrap(), running);
            prop_assert!(view.tenants.running.values().all(|count| *count > 0));
        }
    }
}
