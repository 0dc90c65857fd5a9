//! When to ping a shell's peer, and when to give it up.

use std::time::Instant;

use crate::limits::{SHELL_PING_INTERVAL, SHELL_SILENCE_TIMEOUT};

/// The heartbeat of one side of a shell. It holds no clock: the caller says what
/// time it is and sleeps until [`deadline`](Self::deadline).
#[derive(Debug, Clone)]
pub struct Keepalive {
    last_heard: Instant,
    next_ping: Instant,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// Nothing before the [deadline](Keepalive::deadline).
    Quiet,
    /// A websocket ping; the next one is scheduled already.
    Ping,
    /// The peer has been silent for too long.
    GiveUp,
}

impl Keepalive {
    /// A heartbeat that begins at `now`, when the handshake is done.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { last_heard: now, next_ping: now + SHELL_PING_INTERVAL }
    }

    /// Notes that something came from the peer.
    pub fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// When [`pulse`](Self::pulse) is to be asked next.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.next_ping.min(self.last_heard + SHELL_SILENCE_TIMEOUT)
    }

    /// What is due at `now`.
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
    fn a_silent_peer_is_pinged_twice_and_given_up_after_45_seconds() {
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
    fn a_peer_that_answers_is_kept() {
        let mut now = Instant::now();
        let mut keepalive = Keepalive::new(now);
        for _ in 0..100 {
            now = keepalive.deadline();
            assert_eq!(keepalive.pulse(now), Pulse::Ping);
            keepalive.heard(now + Duration::from_millis(5));
        }
    }
}
