//! Repeating a reply whose connection failed.
//!
//! Owns when to stop. It repeats only what the caller passes: a reply, or an action that may be
//! served twice.

use std::time::Duration;

use metaservice_protocol::limits::REPLY_TIMEOUT;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::error::ClientError;
use crate::backoff::Backoff;

/// How often a reply is attempted at least when connections fail.
const MIN_ATTEMPTS: u32 = 3;

/// The longest delay between two attempts.
const MAX_DELAY: Duration = Duration::from_millis(500);

/// Makes attempts until one does not fail with a transport error, the host has stopped waiting,
/// or `stopping` becomes true.
///
/// The host may not have seen the reply begin. If it has, it answers the next attempt with
/// `UnknownActionId`. A few attempts are not enough: a guest that floods its network card can
/// displace one handshake after another.
///
/// # Errors
/// The error of the first attempt. After a transport error, any other error of a later attempt
/// means that the host no longer waits: it may have the complete reply, so `Err` does not mean that
/// the reply is lost.
pub(crate) async fn retry<F: Future<Output = Result<(), ClientError>>>(
    mut stopping: watch::Receiver<bool>,
    mut attempt: impl FnMut() -> F,
) -> Result<(), ClientError> {
    let (begun, mut backoff) = (Instant::now(), Backoff::new());
    let mut first_error = None;
    for number in 1.. {
        match attempt().await {
            Err(error) if error.is_transport() => {
                first_error.get_or_insert(error);
            }
            Err(_) if first_error.is_some() => break,
            outcome => return outcome,
        }
        let delay = backoff.delay().min(MAX_DELAY);
        if number >= MIN_ATTEMPTS && begun.elapsed() + delay >= REPLY_TIMEOUT {
            break;
        }
        tokio::select! {
            () = sleep(delay) => {}
            _ = stopping.wait_for(|stopping| *stopping) => break,
        }
    }
    first_error.map_or(Ok(()), Err)
}
