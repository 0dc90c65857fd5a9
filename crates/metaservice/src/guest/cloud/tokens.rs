//! Session tokens of the instance metadata protocol, version 2.
//!
//! Owns which tokens are valid, and until when. A guest can request any number of tokens: only the
//! last 64 are kept. A client whose token is gone requests another one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::job::session::is_same;

/// The longest lifetime of a token, in seconds: six hours.
const MAX_LIFETIME: u32 = 21_600;

/// How many tokens are kept.
const KEPT: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Tokens(VecDeque<(String, Instant)>);

impl Tokens {
    /// Adds a token that is valid for `seconds` from `now`.
    pub(super) fn issue(&mut self, token: String, seconds: u32, now: Instant) -> String {
        self.0.retain(|(_, end)| *end > now);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((token.clone(), now + Duration::from_secs(seconds.into())));
        token
    }

    pub(super) fn is_valid(&self, presented: &str, now: Instant) -> bool {
        // Compare all of them, so that the time does not show which one is nearly right.
        let known = |(token, end): &(String, Instant)| is_same(token, presented) & (*end > now);
        self.0.iter().map(known).fold(false, |any, known| any | known)
    }
}

/// The requested lifetime of a token: 1 to 21600 seconds.
pub(super) fn lifetime(header: Option<&str>) -> Option<u32> {
    let seconds = header?.trim().parse().ok()?;
    (1..=MAX_LIFETIME).contains(&seconds).then_some(seconds)
}
