//! What is known of each watched job, as a table.
//!
//! This module starts and reads nothing: it says which jobs to watch.

use std::collections::BTreeMap;

use super::gauges::Gauges;
use crate::output::printer::printable;
use crate::output::table;

/// The watched jobs.
#[derive(Debug, Default)]
pub(super) struct Board {
    jobs: BTreeMap<String, Watched>,
}

#[derive(Debug, Clone, PartialEq)]
enum Watched {
    /// Nothing has arrived.
    Begun,
    Seen(Box<Gauges>),
    /// It cannot be watched. The next listing begins again, unless that is of no use.
    Failed {
        again: bool,
    },
}

impl Board {
    /// Takes the names of the jobs that run. Returns those to begin with. Other jobs are dropped.
    pub(super) fn list(&mut self, running: &[String]) -> Vec<String> {
        self.jobs.retain(|name, _| running.contains(name));
        let mut new = Vec::new();
        for name in running {
            let begins = match self.jobs.get(name) {
                None => true,
                Some(Watched::Failed { again }) => *again,
                Some(_) => false,
            };
            if begins {
                self.jobs.insert(name.clone(), Watched::Begun);
                new.push(name.clone());
            }
        }
        new
    }

    /// Takes an observation. One of a job that is not watched is ignored.
    pub(super) fn observe(&mut self, name: &str, gauges: Gauges) {
        if let Some(job) = self.jobs.get_mut(name) {
            *job = Watched::Seen(Box::new(gauges));
        }
    }

    /// A job cannot be watched. `again`: that may change.
    pub(super) fn fail(&mut self, name: &str, again: bool) {
        if let Some(job) = self.jobs.get_mut(name) {
            *job = Watched::Failed { again };
        }
    }

    /// A job has ended.
    pub(super) fn end(&mut self, name: &str) {
        self.jobs.remove(name);
    }

    /// Whether no job is watched.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The table: the headings, and a line for each job.
    pub(super) fn lines(&self) -> Vec<String> {
        let head = std::iter::once("NAME").chain(Gauges::HEADINGS).map(str::to_owned).collect();
        let rows = self.jobs.iter().map(|(name, job)| {
            let cells = match job {
                Watched::Seen(gauges) => gauges.cells(),
                _ => Gauges::HEADINGS.map(|_| "-".to_owned()),
            };
            std::iter::once(printable(name)).chain(cells).collect()
        });
        table::lines(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use metaservice::Stats;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn gauges() -> Gauges {
        Gauges::between(&Stats::default(), &Stats::default())
    }

    #[test]
    fn jobs_appear_and_vanish() {
        let mut board = Board::default();
        assert_eq!(board.list(&names(&["b", "a"])), ["b", "a"]);
        assert_eq!(board.list(&names(&["b", "a"])), [""; 0]);
        board.observe("a", gauges());
        board.observe("unknown", gauges());
        let lines = board.lines();
        assert!(lines.len() == 3 && lines[0].starts_with("NAME  CPU %"), "{lines:?}");
        assert!(lines[1].starts_with("a     0.0%") && lines[2].starts_with("b     -"), "{lines:?}");
        assert_eq!(board.list(&names(&["c", "a"])), ["c"]);
        board.end("a");
        // A job of the same name is another one.
        assert_eq!(board.list(&names(&["c", "a"])), ["a"]);
        board.list(&[]);
        assert!(board.is_empty());
    }

    #[test]
    fn a_job_that_cannot_be_watched_stays_and_may_be_tried_again() {
        let mut board = Board::default();
        board.list(&names(&["old", "stopped"]));
        board.fail("old", false);
        board.fail("stopped", true);
        assert_eq!(board.lines().len(), 3);
        assert_eq!(board.list(&names(&["old", "stopped"])), ["stopped"]);
        assert_eq!(board.list(&names(&["old", "stopped"])), [""; 0]);
    }
}
