//! Session tokens of the instance metadata protocol, version 2.
//!
//! Owns which tokens live and until when. A guest can ask for as many as it likes: only the last
//! few are kept, and whoever has lost one asks for another.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::job::session::is_same;

/// The longest life of a token, in seconds: six hours.
const MAX_LIFE: u32 = 21_600;

/// How many tokens are kept.
const KEPT: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Tokens(VecDeque<(String, Instant)>);

impl Tokens {
    /// Takes `token` as one that lives for so many seconds from now.
    pub(super) fn issue(&mut self, token: String, seconds: u32, now: Instant) -> String {
        self.0.retain(|(_, end)| *end > now);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((token.clone(), now + Duration::from_secs(seconds.into())));
        token
    }

    pub(super) fn admits(&self, presented: &str, now: Instant) -> bool {
        // All are compared, so that the time tells nothing of which one was nearly right.
        let known = |(token, end): &(String, Instant)| is_same(token, presented) & (*end > now);
        self.0.iter().map(known).fold(false, |any, known| any | known)
    }
}

/// How long a token is to live: 1 to 21600 seconds.
pub(super) fn life(header: Option<&str>) -> Option<u32> {
    let seconds = header?.trim().parse().ok()?;
    (1..=MAX_LIFE).contains(&seconds).then_some(seconds)
}
