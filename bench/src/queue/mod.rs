//! Measures the queue: one `nats-server`, one worker and its clients on this host.
//!
//! `lab` has the server and the workers. In `simulated` the jobs end at once, so the numbers are
//! those of the queue. In `real` each job has a machine.

mod lab;
mod real;
mod simulated;

use crate::measure::{Entry, Group};

/// All measures of the group, in the order of the page.
pub(crate) fn entries() -> Vec<Entry> {
    let entry = |id, prepare| Entry { group: Group::Queue, id, quick: false, prepare };
    vec![
        entry("dispatch", simulated::dispatch as _),
        entry("backlog", simulated::backlog as _),
        entry("memory", simulated::memory as _),
        entry("fairness", simulated::fairness as _),
        entry("overhead", real::overhead as _),
        entry("start", real::start as _),
        entry("rate", real::rate as _),
        entry("crowd", real::crowd as _),
    ]
}
