//! The order and the pace in which the addresses of a name are tried (RFC 8305).

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// The time between the starts of two attempts (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);
/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 16;

/// The addresses in the order in which they are tried: IPv6 first, then in turn (RFC 8305, 4).
pub(crate) fn order<T>(
    peers: impl IntoIterator<Item = T>,
    address: impl Fn(&T) -> IpAddr,
) -> Vec<T> {
    let (six, four): (VecDeque<T>, VecDeque<T>) =
        peers.into_iter().partition(|peer| address(peer).is_ipv6());
    let mut queues = [six, four];
    let mut ordered = Vec::new();
    for turn in (0..2).cycle() {
        if ordered.len() == MAX_ADDRESSES || queues.iter().all(VecDeque::is_empty) {
            break;
        }
        ordered.extend(queues[turn].pop_front());
    }
    ordered
}

/// Starts one attempt after the other: when the last one has failed, or a quarter of a second has
/// passed. Returns the first success, and ends the others.
///
/// # Errors
/// The errors of all attempts, if each has failed.
pub(crate) async fn race<P, T, F: Future<Output = io::Result<T>>>(
    peers: Vec<P>,
    mut connect: impl FnMut(P) -> F,
) -> Result<T, Vec<io::Error>> {
    let (mut peers, mut running) = (peers.into_iter(), FuturesUnordered::new());
    let mut errors = Vec::new();
    loop {
        let Some(peer) = peers.next() else { break };
        running.push(connect(peer));
        // A failure starts the next one at once.
        let stagger = tokio::time::sleep(STAGGER);
        tokio::select! {
            Some(result) = running.next() => match result {
                Ok(connected) => return Ok(connected),
                Err(error) => errors.push(error),
            },
            () = stagger => {}
        }
    }
    while let Some(result) = running.next().await {
        match result {
            Ok(connected) => return Ok(connected),
            Err(error) => errors.push(error),
        }
    }
    Err(errors)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    fn ordered(texts: &[&str]) -> Vec<String> {
        let addresses: Vec<IpAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
        order(addresses, |address| *address).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn families_take_turns_and_ipv6_is_first() {
        assert_eq!(
            ordered(&["1.1.1.1", "1.1.1.2", "2::1", "1.1.1.3", "2::2"]),
            ["2::1", "1.1.1.1", "2::2", "1.1.1.2", "1.1.1.3"]
        );
        assert_eq!(ordered(&["1.1.1.1"]), ["1.1.1.1"]);
        assert_eq!(ordered(&[]), [] as [&str; 0]);
        assert_eq!(ordered(&["1.1.1.1"; 40]).len(), MAX_ADDRESSES);
    }

    /// Races attempts that end after some milliseconds. Returns the result, and when each began.
    async fn raced(attempts: &[(u64, bool)]) -> (Result<usize, usize>, Vec<u128>) {
        let (start, begun) = (Instant::now(), RefCell::new(Vec::new()));
        let result = race((0..attempts.len()).collect(), |index| {
            begun.borrow_mut().push(start.elapsed().as_millis());
            let (after, succeeds) = attempts[index];
            async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                if succeeds { Ok(index) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
            }
        });
        (result.await.map_err(|errors| errors.len()), begun.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_attempt_starts_after_a_failure_or_a_while() {
        assert_eq!(raced(&[(10, true), (0, true)]).await, (Ok(0), vec![0]));
        assert_eq!(raced(&[(10, false), (5, true)]).await, (Ok(1), vec![0, 10]));
        assert_eq!(raced(&[(9000, false), (5, true)]).await, (Ok(1), vec![0, 250]));
        assert_eq!(raced(&[(300, true), (9000, true)]).await, (Ok(0), vec![0, 250]));
        assert_eq!(raced(&[(10, false), (20, false)]).await, (Err(2), vec![0, 10]));
        assert_eq!(raced(&[]).await, (Err(0), vec![]));
    }
}
