//! A limit of events in time.

use std::time::{Duration, Instant};

/// Allows a number of events in a second, on average, and twice as many in a burst.
#[derive(Debug)]
pub(crate) struct Rate {
    interval: Duration,
    burst: Duration,
    /// The time at which all earlier events are paid for.
    paid: Option<Instant>,
}

impl Rate {
    pub(crate) fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, burst: Duration::from_secs(2), paid: None }
    }

    /// Counts an event, unless it is one too many.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let paid = self.paid.map_or(now, |paid| paid.max(now)) + self.interval;
        let fits = paid <= now + self.burst;
        if fits {
            self.paid = Some(paid);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_twice_the_rate_and_then_the_rate_counts() {
        let (mut rate, start) = (Rate::new(10), Instant::now());
        let taken = |rate: &mut Rate, now| (0..100).filter(|_| rate.take(now)).count();
        assert_eq!(taken(&mut rate, start), 20);
        assert_eq!(taken(&mut rate, start + Duration::from_millis(500)), 5);
        assert_eq!(taken(&mut rate, start + Duration::from_secs(60)), 20);
    }
}
