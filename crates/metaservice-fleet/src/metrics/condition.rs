//! Whether a worker takes jobs. No I/O, no clock.

use crate::worker::types::Event;

/// Whether a worker takes jobs, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// It takes jobs.
    Ready,
    /// It has not read the whole queue yet.
    Starting,
    /// No server confirms its lease. It has ended its machines.
    Cut,
    /// Most servers of the queue are down. Its machines continue.
    Down,
    /// It ends, and takes no more jobs.
    Draining,
}

/// What the events of a worker say about its condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Condition {
    pub(super) has_begun: bool,
    pub(super) is_cut: bool,
    pub(super) is_down: bool,
    pub(super) is_draining: bool,
}

impl Condition {
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Ready => self.has_begun = true,
            Event::Cut => self.is_cut = true,
            Event::Down => self.is_down = true,
            Event::Back => (self.is_cut, self.is_down) = (false, false),
            Event::Draining => self.is_draining = true,
            _ => {}
        }
    }

    pub(super) fn readiness(self) -> Readiness {
        match self {
            Self { is_draining: true, .. } => Readiness::Draining,
            Self { is_cut: true, .. } => Readiness::Cut,
            Self { is_down: true, .. } => Readiness::Down,
            Self { has_begun: false, .. } => Readiness::Starting,
            _ => Readiness::Ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_ready_between_its_start_and_its_drain_unless_it_is_cut_off() {
        let mut condition = Condition::default();
        assert_eq!(condition.readiness(), Readiness::Starting);
        for (event, readiness) in [
            (Event::Ready, Readiness::Ready),
            (Event::Down, Readiness::Down),
            (Event::Cut, Readiness::Cut),
            (Event::Back, Readiness::Ready),
            (Event::Draining, Readiness::Draining),
            (Event::Cut, Readiness::Draining),
        ] {
            condition.event(&event);
            assert_eq!(condition.readiness(), readiness, "after {event:?}");
        }
    }
}
