//! A cluster that elects a leader refuses calls, for some seconds at most.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{
    ConsumerError, ConsumerErrorKind, LastRawMessageError, LastRawMessageErrorKind,
};
use tokio::time::{Instant, sleep};

/// How long a call waits for a leader.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait before a call is made again. No server says when there is a leader.
const PAUSE: Duration = Duration::from_millis(250);

/// An error of a call that an election can cause.
pub(super) trait Electing {
    /// Whether it says that there is no leader.
    fn has_no_leader(&self) -> bool;
}

impl Electing for ConsumerError {
    fn has_no_leader(&self) -> bool {
        matches!(self.kind(), ConsumerErrorKind::JetStream(error)
            if is_election(error.error_code()))
    }
}

impl Electing for LastRawMessageError {
    fn has_no_leader(&self) -> bool {
        matches!(self.kind(), LastRawMessageErrorKind::JetStream(error)
            if is_election(error.error_code()))
    }
}

fn is_election(code: ErrorCode) -> bool {
    [ErrorCode::CLUSTER_NOT_AVAILABLE, ErrorCode::CLUSTER_NOT_LEADER].contains(&code)
}

/// Makes a call until a leader answers, for a limited time.
pub(super) async fn patiently<T, E: Electing, F: Future<Output = Result<T, E>>>(
    mut call: impl FnMut() -> F,
) -> Result<T, E> {
    let until = Instant::now() + TIMEOUT;
    loop {
        match call().await {
            Err(error) if error.has_no_leader() && Instant::now() < until => sleep(PAUSE).await,
            called => return called,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Refused(bool);

    impl Electing for Refused {
        fn has_no_leader(&self) -> bool {
            self.0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_a_leader_and_for_nothing_else() {
        let mut calls = 0;
        let elected = patiently(|| {
            calls += 1;
            std::future::ready(if calls < 5 { Err(Refused(true)) } else { Ok(calls) })
        });
        assert_eq!(elected.await, Ok(5));
        let other = patiently(|| std::future::ready(Err::<(), _>(Refused(false))));
        let began = Instant::now();
        assert_eq!(other.await, Err(Refused(false)));
        assert_eq!(began.elapsed(), Duration::ZERO);
        let without = patiently(|| std::future::ready(Err::<(), _>(Refused(true))));
        assert_eq!(without.await, Err(Refused(true)));
        assert_eq!(began.elapsed(), TIMEOUT);
    }
}
