//! Jobs with a step that this version cannot read.

use super::*;

/// A step of a later version.
fn unknown(queue: &mut Queue, name: &str) {
    queue.sequence += 1;
    let id = id(name);
    let number = queue.view.job(&id).unwrap().next;
    let at = Stored { number, sequence: queue.sequence, time: queue.time() };
    queue.view.apply(queue.now, &id, at, None);
}

#[test]
fn a_job_with_an_unknown_step_is_never_claimed_and_never_expires() {
    let mut queue = Queue::new();
    queue.submit("a", |request| request.deadline = Some(HOUR + 3_000));
    assert_eq!(queue.chosen().unwrap(), "a");
    unknown(&mut queue, "a");
    assert_eq!(queue.chosen(), None);
    queue.now = second(4);
    assert_eq!(queue.view.due(queue.now), []);
    assert_eq!(queue.view.quiet(queue.now), None);
    queue.next("a", Change::Cancelled);
    assert!(queue.view.job(&id("a")).unwrap().is_of_later_version());
    queue.next("a", Change::Ended(Outcome::Unknown));
    assert!(queue.view.job(&id("a")).is_none(), "a worker forgets what has ended");
}

#[test]
fn a_job_with_an_unknown_step_is_never_lost_and_never_given_back() {
    let mut queue = Queue::new();
    for (name, run) in [("a", "other"), ("b", "own")] {
        queue.submit(name, |_| {});
        queue.claim(name, run);
        unknown(&mut queue, name);
        // What follows is a later version's as well.
        queue.next(name, Change::Lost { cause: LostCause::Lease, message: String::new() });
        queue.claim(name, run);
    }
    queue.now = second(15);
    queue.view.leases.own_seen = queue.now;
    assert_eq!(queue.view.due(queue.now), []);
    let change = || Change::Cancelled;
    let own = "own".parse().unwrap();
    assert_eq!(queue.view.due_of_run(&own, |_| false, change), []);
    assert_eq!(queue.view.tenants().len(), 0, "they take no place of their tenant");
}

#[test]
fn only_a_client_notes_what_it_cannot_read() {
    let at = Stored { number: 0, sequence: 1, time: HOUR };
    let late = Stored { number: 3, ..at };
    let mut views = [View::of_client(), View::of_worker("own".parse().unwrap(), second(0))];
    for view in &mut views {
        view.apply(second(0), &id("a"), at, None);
        view.apply(second(0), &id("late"), late, None);
    }
    assert_eq!(views[0].unknown().collect::<Vec<_>>(), [&id("a")]);
    assert!(views[0].is_unknown(&id("a")) && !views[0].is_unknown(&id("late")));
    assert_eq!(views[1].unknown().count(), 0);
}

proptest! {
    #[test]
    fn nothing_is_due_for_a_job_of_a_later_version(
        steps in proptest::collection::vec((0_u8..3, 0_u8..7), 0..60),
    ) {
        let mut queue = Queue::new();
        for (name, kind) in steps {
            let name = format!("j{name}");
            if queue.view.job(&id(&name)).is_none() {
                queue.submit(&name, |request| request.deadline = Some(HOUR + 1));
            }
            let lost = |cause| Change::Lost { cause, message: String::new() };
            match kind {
                0 => queue.claim(&name, "own"),
                1 => queue.claim(&name, "other"),
                2 => queue.next(&name, lost(LostCause::Released)),
                3 => queue.next(&name, lost(LostCause::Machine)),
                4 => queue.next(&name, Change::Cancelled),
                5 => queue.next(&name, Change::Ended(Outcome::Cancelled)),
                _ => unknown(&mut queue, &name),
            }
            let view = &mut queue.view;
            let later: Vec<JobId> = view
                .jobs()
                .filter(|(_, job)| job.is_of_later_version())
                .map(|(id, _)| id.clone())
                .collect();
            let now = second(20);
            view.leases.own_seen = now;
            let own = "own".parse().unwrap();
            let given_back = view.due_of_run(&own, |_| false, || Change::Cancelled);
            let due = view.due(now).into_iter().chain(given_back);
            prop_assert!(due.into_iter().all(|due| !later.contains(&due.id)));
            let chosen = queue.chosen();
            prop_assert!(chosen.is_none_or(|chosen| !later.contains(&id(&chosen))));
        }
    }
}
