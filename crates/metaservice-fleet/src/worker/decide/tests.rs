use metaservice_sandbox::spec::JobSpec;

use super::*;

/// A worker with two slots, and the steps of a queue whose tenant may run one job.
struct Worker {
    decider: Decider,
    sequence: u64,
}

impl Worker {
    fn new() -> Self {
        let features = Features::default();
        let capacity = Capacity { slots: 2, features, memory: 8 << 30, min_free_disk: 1000 };
        let decider = Decider::new("own".parse().unwrap(), "own".parse().unwrap(), capacity);
        let mut worker = Self { decider, sequence: 0 };
        let limits = TenantLimits { running: Some(1), waiting: None };
        worker.decider.limit(Tenant::default(), limits);
        for id in ["a", "b"] {
            let request = Request::new(JobSpec::new(["true"]));
            worker.step(id, 0, Change::Submitted(Box::new(request)));
        }
        worker
    }

    fn step(&mut self, id: &str, number: u32, change: Change) {
        self.sequence += 1;
        let at = Stored { number, sequence: self.sequence, time: 1000 };
        self.decider.take(Duration::ZERO, &id.parse().unwrap(), at, Some(change));
    }

    /// The one step that it writes now.
    fn writes(&mut self) -> Due {
        let orders = self.nothing();
        let [Order::Write(due)] = &orders[..] else { panic!("not one step: {orders:?}") };
        due.clone()
    }

    fn nothing(&mut self) -> Vec<Order> {
        self.decider.advance(Duration::ZERO, Left::UNKNOWN);
        self.decider.orders()
    }

    fn confirm(&mut self, due: &Due) -> Vec<Order> {
        self.decider.wrote(Duration::ZERO, due.clone(), Answer::Own);
        self.decider.orders()
    }
}

fn claim_of(worker: &str) -> Change {
    Change::Claimed { worker: worker.parse().unwrap(), run: worker.parse().unwrap() }
}

fn released(id: &str) -> Due {
    let change = Change::Lost { cause: LostCause::Released, message: String::new() };
    Due { id: id.parse().unwrap(), number: 2, change }
}

#[test]
fn a_worker_claims_no_more_jobs_of_a_tenant_than_may_run() {
    let mut worker = Worker::new();
    let due = worker.writes();
    assert_eq!((due.id.as_str(), due.number), ("a", 1));
}

#[test]
fn a_claim_that_came_too_late_is_given_back_before_its_machine_starts() {
    let mut worker = Worker::new();
    let due = worker.writes();
    worker.step("b", 1, claim_of("other"));
    worker.step("a", 1, claim_of("own"));
    assert_eq!(worker.confirm(&due), [Order::Write(released("a"))]);
}

#[test]
fn a_claim_that_came_too_late_is_given_back_also_if_its_answer_was_first() {
    let mut worker = Worker::new();
    let due = worker.writes();
    assert_eq!(worker.confirm(&due), []);
    worker.step("b", 1, claim_of("other"));
    worker.step("a", 1, claim_of("own"));
    assert_eq!(worker.decider.orders(), [Order::Write(released("a"))]);
    assert_eq!(worker.nothing(), [], "it is given back once");
}

#[test]
fn the_first_claim_stays() {
    let mut worker = Worker::new();
    let due = worker.writes();
    worker.step("a", 1, claim_of("own"));
    worker.step("b", 1, claim_of("other"));
    let orders = worker.confirm(&due);
    assert!(matches!(&orders[..], [Order::Begin(begin)] if begin.id.as_str() == "a"), "{orders:?}");
}

#[test]
fn an_attempt_ends_without_a_step_once_a_later_version_writes_one() {
    let mut worker = Worker::new();
    let due = worker.writes();
    worker.step("a", 1, claim_of("own"));
    worker.confirm(&due);
    let at = Stored { number: 2, sequence: 9, time: 1000 };
    let id: JobId = "a".parse().unwrap();
    worker.decider.take(Duration::ZERO, &id, at, None);
    let stop = Order::Stop(id.clone(), Stop::Dropped);
    assert_eq!(worker.decider.orders(), [stop]);
    worker.decider.ended(&id, 1);
    let next = worker.writes();
    assert_eq!((next.id.as_str(), next.number), ("b", 1), "only the other job is claimed");
}

#[test]
fn a_job_whose_attempt_broke_waits_again_and_the_worker_goes_on() {
    let mut worker = Worker::new();
    let due = worker.writes();
    worker.step("a", 1, claim_of("own"));
    worker.confirm(&due);
    let id: JobId = "a".parse().unwrap();
    assert!(worker.decider.broken(&id, 1, "fault".to_owned()));
    let change = Change::Lost { cause: LostCause::Machine, message: "fault".to_owned() };
    let lost = Due { id: id.clone(), number: 2, change: change.clone() };
    assert_eq!(worker.decider.orders(), [Order::Write(lost)]);
    assert_eq!(worker.nothing(), [], "it is written once");
    worker.step("a", 2, change);
    let next = worker.writes();
    assert_eq!((next.id.as_str(), next.number), ("b", 1));

    // The attempt had written its result before.
    assert!(!worker.decider.broken(&id, 1, "fault".to_owned()));
    assert_eq!(worker.decider.orders(), []);
}

#[test]
fn a_step_of_a_broken_attempt_that_no_server_confirmed_is_written_again() {
    let mut worker = Worker::new();
    let due = worker.writes();
    worker.step("a", 1, claim_of("own"));
    worker.confirm(&due);
    let id: JobId = "a".parse().unwrap();
    worker.decider.broken(&id, 1, "fault".to_owned());
    let orders = worker.decider.orders();
    let [Order::Write(lost)] = &orders[..] else { panic!("not one step: {orders:?}") };
    worker.decider.wrote(Duration::ZERO, lost.clone(), Answer::Unknown);
    worker.decider.confirmed(Duration::from_secs(1));
    let again = worker.writes();
    assert_eq!((again.id, again.number), (id, 2));
}

/// How many of two jobs of 1 GiB the worker takes with this left, and why not more. A third job
/// never fits.
fn idle(left: Left) -> (usize, Option<Reason>) {
    let mut worker = Worker::new();
    worker.decider.limit(Tenant::default(), TenantLimits::default());
    let mut request = Request::new(JobSpec::new(["true"]));
    request.spec.machine.memory.0 = 9 << 30;
    worker.step("huge", 0, Change::Submitted(Box::new(request)));
    worker.decider.advance(Duration::ZERO, left);
    (worker.decider.orders().len(), worker.decider.idle())
}

#[test]
fn a_worker_says_why_it_takes_no_job() {
    let left = |memory, disk| Left { memory, disk };
    assert_eq!(idle(left(4 << 30, 1000)), (2, None), "no slot is free, and the host has room");
    assert_eq!(idle(left(1 << 20, 1000)), (0, Some(Reason::Memory)));
    assert_eq!(idle(left(4 << 30, 999)), (0, Some(Reason::Disk)));
    assert_eq!(idle(left(1 << 20, 999)), (0, Some(Reason::Disk)));

    let capacity =
        Capacity { slots: 1, features: Features::default(), memory: 0, min_free_disk: 0 };
    let decider = || Decider::new("w".parse().unwrap(), "r".parse().unwrap(), capacity.clone());
    let mut small = Worker { decider: decider(), sequence: 0 };
    small.step("a", 0, Change::Submitted(Box::new(Request::new(JobSpec::new(["true"])))));
    small.decider.advance(Duration::ZERO, left(0, 0));
    assert_eq!(small.decider.idle(), None, "a job that never fits is not waited for");
    small.decider.drain();
    small.decider.advance(Duration::ZERO, Left::UNKNOWN);
    assert_eq!(small.decider.idle(), Some(Reason::Draining));
}

#[test]
fn a_worker_takes_jobs_again_once_the_host_has_room() {
    let mut worker = Worker::new();
    worker.decider.advance(Duration::ZERO, Left { memory: u64::MAX, disk: 10 });
    assert_eq!((worker.decider.orders().len(), worker.decider.idle()), (0, Some(Reason::Disk)));
    let due = worker.writes();
    assert_eq!((due.id.as_str(), worker.decider.idle()), ("a", None));
}
