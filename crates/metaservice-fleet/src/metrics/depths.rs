//! The jobs that wait, by tenant and class. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::Tenant;
use crate::request::Priority;
use crate::state::{JobState, Phase};

/// The most tenants that have a label of their own in the life of a worker: the first ones with a
/// job that waits. A scrape never has more series, whatever names clients invent.
pub const MAX_TENANTS: usize = 100;

/// The label of all other tenants together.
pub const OTHER: &str = "other";

/// The classes, with their labels.
pub(super) const CLASSES: [(Priority, &str); 3] =
    [(Priority::Low, "low"), (Priority::Normal, "normal"), (Priority::High, "high")];

/// How many jobs of one tenant wait, in the order of [`CLASSES`].
type Classes = [i64; CLASSES.len()];

/// How many jobs wait.
#[derive(Debug, Default)]
pub(super) struct Depths {
    waiting: BTreeMap<Tenant, Classes>,
    labelled: BTreeSet<Tenant>,
}

/// How many jobs wait under one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Depth {
    pub(super) tenant: String,
    pub(super) class: &'static str,
    pub(super) jobs: i64,
}

impl Depths {
    /// Takes a step of a job. `None`: there was no job.
    pub(super) fn moved(&mut self, before: Option<&JobState>, after: Option<&JobState>) {
        self.add(before, -1);
        self.add(after, 1);
    }

    fn add(&mut self, job: Option<&JobState>, number: i64) {
        let waits =
            |job: &&JobState| matches!(job.phase, Phase::Waiting { .. }) && !job.has_unknown_step;
        let Some(job) = job.filter(waits) else { return };
        let tenant = &job.request.tenant;
        let classes = self.waiting.entry(tenant.clone()).or_default();
        for (place, (class, _)) in CLASSES.iter().enumerate() {
            classes[place] += if *class == job.request.priority { number } else { 0 };
        }
        if classes.iter().all(|jobs| *jobs == 0) {
            self.waiting.remove(tenant);
        }
    }

    /// How many jobs wait under each label. A label that was there once stays, with zero.
    pub(super) fn sample(&mut self) -> Vec<Depth> {
        let room = MAX_TENANTS.saturating_sub(self.labelled.len());
        let new = self.waiting.keys().filter(|tenant| !self.labelled.contains(*tenant));
        let new: Vec<Tenant> = new.take(room).cloned().collect();
        self.labelled.extend(new);
        let own = |tenant: &Tenant| self.waiting.get(tenant).copied().unwrap_or_default();
        let labelled = self.labelled.iter();
        let mut labels: BTreeMap<&str, Classes> =
            labelled.map(|tenant| (tenant.as_str(), own(tenant))).collect();
        let others = self.waiting.iter().filter(|(tenant, _)| !self.labelled.contains(*tenant));
        let rest = labels.entry(OTHER).or_default();
        for (_, classes) in others {
            rest.iter_mut().zip(classes).for_each(|(sum, jobs)| *sum += jobs);
        }
        let depths = labels.into_iter().flat_map(|(tenant, classes)| {
            CLASSES.iter().zip(classes).map(move |((_, class), jobs)| Depth {
                tenant: tenant.to_owned(),
                class,
                jobs,
            })
        });
        depths.collect()
    }
}

#[cfg(test)]
mod tests {
    use metaservice_sandbox::spec::JobSpec;
    use proptest::prelude::*;

    use super::*;
    use crate::request::Request;
    use crate::state::Stored;
    use crate::step::{Change, LostCause, Outcome};

    fn at(number: u32) -> Stored {
        Stored { number, sequence: 1, time: 1 }
    }

    fn job(tenant: &str, priority: Priority) -> JobState {
        let mut request = Request::new(JobSpec::new(["true"]));
        (request.tenant, request.priority) = (tenant.parse().unwrap(), priority);
        JobState::submitted(at(0), Change::Submitted(Box::new(request))).unwrap()
    }

    fn of(depths: &mut Depths, tenant: &str, class: &str) -> Option<i64> {
        let sample = depths.sample();
        let found = sample.iter().find(|depth| depth.tenant == tenant && depth.class == class);
        found.map(|depth| depth.jobs)
    }

    #[test]
    fn a_tenant_keeps_its_label_when_nothing_waits() {
        let mut depths = Depths::default();
        let high = job("a", Priority::High);
        depths.moved(None, Some(&high));
        assert_eq!(of(&mut depths, "a", "high"), Some(1));
        assert_eq!(of(&mut depths, "a", "normal"), Some(0));
        depths.moved(Some(&high), None);
        assert_eq!(of(&mut depths, "a", "high"), Some(0));
        assert_eq!(of(&mut depths, "b", "high"), None);
    }

    #[test]
    fn the_tenants_after_the_first_hundred_share_a_label() {
        let mut depths = Depths::default();
        for tenant in 0..MAX_TENANTS {
            depths.moved(None, Some(&job(&format!("t{tenant}"), Priority::Normal)));
        }
        assert_eq!(of(&mut depths, OTHER, "normal"), Some(0));
        for tenant in 0..50 {
            depths.moved(None, Some(&job(&format!("a{tenant}"), Priority::Normal)));
        }
        assert_eq!(of(&mut depths, OTHER, "normal"), Some(50));
        assert_eq!(of(&mut depths, "t99", "normal"), Some(1));
        assert_eq!(of(&mut depths, "a0", "normal"), None);
        assert_eq!(depths.sample().len(), (MAX_TENANTS + 1) * CLASSES.len());
    }

    #[test]
    fn a_tenant_with_the_name_of_the_rest_is_counted_with_it() {
        let mut depths = Depths::default();
        for tenant in 0..=MAX_TENANTS {
            depths.moved(None, Some(&job(&format!("a{tenant}"), Priority::Low)));
        }
        depths.moved(None, Some(&job(OTHER, Priority::Low)));
        assert_eq!(of(&mut depths, OTHER, "low"), Some(2));
        let names = depths.sample().into_iter().map(|depth| depth.tenant);
        assert_eq!(names.collect::<BTreeSet<_>>().len(), MAX_TENANTS + 1);
    }

    fn change() -> impl Strategy<Value = Change> {
        let (worker, run) = ("w".parse().unwrap(), "r".parse().unwrap());
        let lost = |cause| Change::Lost { cause, message: String::new() };
        prop_oneof![
            Just(Change::Claimed { worker, run }),
            Just(Change::Cancelled),
            Just(Change::Expired),
            Just(Change::Ended(Outcome::Cancelled)),
            Just(lost(LostCause::Machine)),
            Just(lost(LostCause::Released)),
        ]
    }

    proptest! {
        #[test]
        fn the_depths_are_those_of_the_jobs(
            steps in proptest::collection::vec((0_usize..6, change()), 0..60),
        ) {
            let class = |n: usize| CLASSES[n % 3].0;
            let mut jobs: Vec<_> = (0..6).map(|n| job(&format!("t{}", n % 2), class(n))).collect();
            let mut depths = Depths::default();
            jobs.iter().for_each(|job| depths.moved(None, Some(job)));
            for (number, change) in steps {
                let before = jobs[number].clone();
                let next = before.next;
                jobs[number].apply(at(next), Some(change));
                depths.moved(Some(&before), Some(&jobs[number]));
                for Depth { tenant, class, jobs: depth } in depths.sample() {
                    let waits = jobs.iter().filter(|job| {
                        matches!(job.phase, Phase::Waiting { .. })
                            && job.request.tenant.as_str() == tenant
                            && CLASSES.contains(&(job.request.priority, class))
                    });
                    prop_assert_eq!(depth, i64::try_from(waits.count()).unwrap());
                }
            }
        }
    }
}
