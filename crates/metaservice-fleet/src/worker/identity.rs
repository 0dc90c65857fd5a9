//! Whose name a worker has: two workers of a queue never have the same one.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::name::{RunId, WorkerName};
use crate::queue::{HeldLease, Leases, ReadError};
use crate::state::ServerTime;
use crate::step::{Renewal, WorkerState};
use crate::view::LEASE;

/// The file that has the last life of the worker with this directory.
const FILE: &str = "run";

/// The life that used this directory before. The caller has the lock of the directory: that life is
/// over, whatever its lease says.
pub(super) fn previous(directory: &Path) -> Option<RunId> {
    std::fs::read_to_string(directory.join(FILE)).ok()?.trim().parse().ok()
}

/// Notes the life that uses this directory.
pub(super) fn note(directory: &Path, run: &RunId) -> io::Result<()> {
    std::fs::write(directory.join(FILE), run.to_string())
}

/// Reads all leases, passes each on, and returns that of this name.
pub(super) async fn read(
    leases: &mut Leases,
    name: &WorkerName,
    mut each: impl FnMut(&HeldLease),
) -> Result<Option<HeldLease>, ReadError> {
    let mut held = None;
    while !leases.is_caught_up() {
        let lease = leases.next_held().await?;
        each(&lease);
        if lease.name == name.as_str() {
            held = Some(lease);
        }
    }
    Ok(held)
}

/// How long another worker's lease has been there, if it lives at this time. What this version
/// cannot read is a life of a later version.
pub(super) fn taken(
    held: &HeldLease,
    previous: Option<&RunId>,
    time: ServerTime,
) -> Option<Duration> {
    let is_over = held.renewal.as_ref().is_some_and(|renewal| {
        renewal.state == WorkerState::Gone || Some(&renewal.run) == previous
    });
    let age = Duration::from_millis(time.saturating_sub(held.time));
    (!is_over && age < LEASE).then_some(age)
}

/// Whether another worker has taken this name since this life took it. `before` are the lives that
/// had it before: the last renewal of one may come late.
pub(super) fn is_lost(name: &WorkerName, run: &RunId, before: &[RunId], renewal: &Renewal) -> bool {
    renewal.worker == *name
        && renewal.run != *run
        && !before.contains(&renewal.run)
        && renewal.state != WorkerState::Gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(state: &str) -> HeldLease {
        let renewal = serde_json::json!({
            "worker": "w", "run": "first", "slots": 1, "running": 1, "state": state, "version": "1",
        });
        let renewal = serde_json::from_value(renewal).unwrap();
        HeldLease { name: "w".to_owned(), sequence: 1, time: 1000, renewal: Some(renewal) }
    }

    #[test]
    fn a_name_is_taken_while_its_lease_lives() {
        let (own, other) = ("first".parse().unwrap(), "other".parse().unwrap());
        let ready = held("ready");
        assert_eq!(taken(&ready, None, 15_999), Some(Duration::from_millis(14_999)));
        assert_eq!(taken(&ready, None, 16_000), None);
        assert_eq!(taken(&ready, Some(&other), 1000), Some(Duration::ZERO));
        assert_eq!(taken(&ready, Some(&own), 1000), None, "it was killed on this host");
        assert_eq!(taken(&held("gone"), None, 1000), None);
        assert!(taken(&held("draining"), None, 1000).is_some());
        let later = HeldLease { renewal: None, ..ready };
        assert!(taken(&later, Some(&own), 1000).is_some());
        assert_eq!(taken(&later, None, 16_000), None);
    }

    #[test]
    fn a_directory_knows_its_last_life() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(previous(directory.path()), None);
        for run in [RunId::random(), RunId::random()] {
            note(directory.path(), &run).unwrap();
            assert_eq!(previous(directory.path()), Some(run));
        }
        std::fs::write(directory.path().join(FILE), "not a name\n\n").unwrap();
        assert_eq!(previous(directory.path()), None);
    }

    #[test]
    fn a_name_is_lost_to_a_later_life_and_to_no_earlier_one() {
        let renewal = |state| held(state).renewal.unwrap();
        let name = |name: &str| name.parse().unwrap();
        let run = |run: &str| run.parse::<RunId>().unwrap();
        let own = run("own");
        assert!(is_lost(&name("w"), &own, &[run("zeroth")], &renewal("ready")));
        assert!(is_lost(&name("w"), &own, &[], &renewal("draining")));
        assert!(!is_lost(&name("w"), &own, &[], &renewal("gone")));
        assert!(!is_lost(&name("w"), &own, &[run("first")], &renewal("ready")));
        assert!(!is_lost(&name("w"), &run("first"), &[], &renewal("ready")));
        assert!(!is_lost(&name("other"), &own, &[], &renewal("ready")));
    }
}
