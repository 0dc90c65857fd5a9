//! When to send a ping to a shell's peer, and when to give up.

use std::time::Instant;

use crate::limits::{SHELL_PING_INTERVAL, SHELL_SILENCE_TIMEOUT};

/// The heartbeat of one end of a shell stream. It has no clock: the caller passes the time, and
/// sleeps until [`deadline`](Self::deadline).
///
/// ```
/// use std::time::{Duration, Instant};
/// use metaservice_protocol::shell::{Keepalive, Pulse};
///
/// let start = Instant::now();
/// let mut keepalive = Keepalive::new(start);
/// assert_eq!(keepalive.pulse(start), Pulse::Quiet);
/// assert_eq!(keepalive.pulse(keepalive.deadline()), Pulse::Ping);
/// ```
#[derive(Debug, Clone)]
pub struct Keepalive {
    last_heard: Instant,
    next_ping: Instant,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// Nothing before the [deadline](Keepalive::deadline).
    Quiet,
    /// Send a websocket ping.
    Ping,
    /// The peer has been silent for too long: close the stream.
    GiveUp,
}

impl Keepalive {
    /// A heartbeat that starts at the end of the handshake.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { last_heard: now, next_ping: now + SHELL_PING_INTERVAL }
    }

    /// The peer has sent something.
    pub fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// When to call [`pulse`](Self::pulse) next.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.next_ping.min(self.last_heard + SHELL_SILENCE_TIMEOUT)
    }

    /// What to do at the time `now`. After [`Pulse::Ping`] the next ping is scheduled.
    pub fn pulse(&mut self, now: Instant) -> Pulse {
        if now >= self.last_heard + SHELL_SILENCE_TIMEOUT {
            return Pulse::GiveUp;
        }
        if now >= self.next_ping {
            self.next_ping = now + SHELL_PING_INTERVAL;
            return Pulse::Ping;
        }
        Pulse::Quiet
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_silent_peer_gets_two_pings_and_45_seconds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut keepalive = Keepalive::new(start);
        let mut seen = Vec::new();
        loop {
            let now = keepalive.deadline();
            let pulse = keepalive.pulse(now);
            seen.push((now, pulse));
            if pulse == Pulse::GiveUp {
                break;
            }
        }
        assert_eq!(seen, [(at(15), Pulse::Ping), (at(30), Pulse::Ping), (at(45), Pulse::GiveUp)]);
    }

    #[test]
    fn a_peer_that_answers_only_gets_pings() {
        let mut now = Instant::now();
        let mut keepalive = Keepalive::new(now);
        for _ in 0..100 {
            now = keepalive.deadline();
            assert_eq!(keepalive.pulse(now), Pulse::Ping);
            keepalive.heard(now + Duration::from_millis(5));
        }
    }
}
