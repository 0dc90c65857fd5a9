//! The limits of tenants, their shares of the slots, and the requirements of jobs.

use super::*;

fn running(limit: u32) -> TenantLimits {
    TenantLimits { running: Some(limit), waiting: None }
}

#[test]
fn memory_processors_and_labels_of_the_host_decide() {
    let mut queue = Queue::new();
    let mut submit = |name: &str, require: &[&str]| {
        let require = require.iter().map(|text| (*text).to_owned()).collect();
        queue.submit(name, |request| request.require = require);
    };
    submit("large", &["mem=9G"]);
    submit("wide", &["cpus=5"]);
    submit("arm", &["arch=aarch64", "mem=1G"]);
    assert_eq!(queue.chosen(), None);
    // The host has 8 GiB, of which 2 are left for the job's machine.
    queue.submit("fits", |request| {
        request.require = ["mem=8G", "cpus=4", "arch=x86_64"].map(str::to_owned).into();
    });
    assert_eq!(queue.chosen().unwrap(), "fits");
}

#[test]
fn a_tenant_at_its_limit_waits() {
    let mut queue = Queue::new();
    let a: Tenant = "a".parse().unwrap();
    for name in ["a1", "a2", "a3"] {
        queue.submit(name, tenant("a"));
    }
    queue.view.limit(a.clone(), running(1));
    assert_eq!(queue.chosen().unwrap(), "a1");
    queue.claim("a1", "x");
    assert_eq!(queue.chosen(), None);
    queue.submit("b1", tenant("b"));
    assert_eq!(queue.chosen().unwrap(), "b1", "another tenant has no limit");
    queue.next("b1", Change::Cancelled);
    queue.next("a1", Change::Ended(Outcome::Cancelled));
    assert_eq!(queue.chosen().unwrap(), "a2");
    queue.view.limit(a.clone(), running(0));
    assert_eq!(queue.chosen(), None);
    queue.view.limit(a, TenantLimits::default());
    assert_eq!(queue.chosen().unwrap(), "a2");
}

#[test]
fn what_a_reader_claims_already_counts() {
    let mut queue = Queue::new();
    for name in ["a1", "a2", "a3"] {
        queue.submit(name, tenant("a"));
    }
    queue.submit("b1", tenant("b"));
    queue.view.tried(&id("a1"), 1);
    assert_eq!(queue.chosen().unwrap(), "b1");
    queue.view.tried(&id("b1"), 1);
    assert_eq!(queue.chosen().unwrap(), "a2");
    queue.view.limit("a".parse().unwrap(), running(1));
    assert_eq!(queue.chosen(), None);
    queue.view.not_written(&id("a1"));
    assert_eq!(queue.chosen().unwrap(), "a1");
}

#[test]
fn the_claim_that_exceeds_a_limit_is_known_by_the_order_of_the_steps() {
    let mut queue = Queue::new();
    queue.submit("a1", tenant("a"));
    queue.submit("a2", tenant("a"));
    queue.view.limit("a".parse().unwrap(), running(1));
    queue.claim("a1", "x");
    assert!(!queue.view.is_over_limit(&id("a1")));
    queue.claim("a2", "y");
    assert!(queue.view.is_over_limit(&id("a2")));
    queue.next("a2", Change::Lost { cause: LostCause::Released, message: String::new() });
    assert!(!queue.view.is_over_limit(&id("a1")));
    let uses = queue.view.tenants();
    let a = TenantUse { running: 1, waiting: 1, limits: running(1) };
    assert_eq!(uses, BTreeMap::from([("a".parse().unwrap(), a)]));
}

proptest! {
    /// A reader that claims what it chooses never exceeds a limit, and leaves no slot free that a
    /// job could take.
    #[test]
    fn no_choice_exceeds_a_limit(
        jobs in proptest::collection::vec(0_u8..3, 1..30),
        limits in proptest::collection::vec(proptest::option::of(0_u32..4), 3),
        ends in proptest::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let mut queue = Queue::new();
        let name = |tenant: usize| -> Tenant { format!("t{tenant}").parse().unwrap() };
        for (number, tenant) in jobs.iter().enumerate() {
            let tenant = name(usize::from(*tenant));
            queue.submit(&format!("j{number}"), |request| request.tenant = tenant);
        }
        for (tenant, running) in limits.iter().enumerate() {
            queue.view.limit(name(tenant), TenantLimits { running: *running, waiting: None });
        }
        let mut claimed: Vec<String> = Vec::new();
        for end in std::iter::once(None).chain(ends.into_iter().map(Some)) {
            if let Some(end) = end && !claimed.is_empty() {
                let over = claimed.remove(end.index(claimed.len()));
                queue.next(&over, Change::Ended(Outcome::Cancelled));
            }
            while claimed.len() < 6 && let Some(next) = queue.chosen() {
                queue.claim(&next, "own");
                claimed.push(next);
            }
            let uses = queue.view.tenants();
            for (tenant, limit) in limits.iter().enumerate() {
                let using = uses.get(&name(tenant)).copied().unwrap_or_default();
                prop_assert!(limit.is_none_or(|limit| using.running <= limit));
                let has_room = limit.is_none_or(|limit| using.running < limit);
                prop_assert!(claimed.len() == 6 || using.waiting == 0 || !has_room);
            }
        }
    }
}

/// How long each job of the tenant `small` waits, in runs of a job, if each job runs as long.
fn waits(large: u32, small: u32, slots: usize) -> Vec<u64> {
    let mut queue = Queue::new();
    for number in 0..large {
        queue.submit(&format!("large-{number}"), tenant("large"));
    }
    let mut waits = Vec::new();
    let mut running: Vec<String> = Vec::new();
    let mut submitted = 0;
    let mut round = 0;
    while waits.len() < small as usize {
        // The large tenant has had all slots for a while when the small one comes.
        if submitted == 0 && (round == 2 || large == 0) {
            submitted = round + 1;
            for number in 0..small {
                queue.submit(&format!("small-{number}"), tenant("small"));
            }
        }
        while running.len() < slots
            && let Some(next) = queue.chosen()
        {
            queue.claim(&next, "own");
            if next.starts_with("small") {
                waits.push(round + 1 - submitted);
            }
            running.push(next);
        }
        round += 1;
        queue.now = second(round);
        queue.renew("own");
        for over in running.drain(..) {
            queue.next(&over, Change::Ended(Outcome::Cancelled));
        }
    }
    waits.sort_unstable();
    waits
}

#[test]
fn a_small_tenant_waits_at_most_twice_as_long_beside_a_large_one() {
    let (alone, beside) = (waits(0, 10, 4), waits(1000, 10, 4));
    let median = |waits: &[u64]| u64::midpoint(waits[4], waits[5]);
    println!("the median wait of the small tenant, in runs of a job:");
    println!("{} alone, {} beside 1000 jobs of another", median(&alone), median(&beside));
    assert!(median(&alone) > 0, "{alone:?}");
    assert!(median(&beside) <= 2 * median(&alone), "{alone:?} {beside:?}");
}
