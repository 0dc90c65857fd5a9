//! Whether the servers of a queue are down, or only cannot be reached from here.
//!
//! A process that has ended leaves a host that refuses connections. If most servers refuse, no
//! majority of them can confirm a step: no other worker can have taken a job. A server that does
//! not answer says nothing.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use async_nats::ServerAddr;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long a server may take to accept or to refuse a connection.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The addresses that are the servers of a queue: those given, and those that a server has named.
pub(super) fn servers(given: &[ServerAddr], named: &[String]) -> BTreeSet<(String, u16)> {
    let named = named.iter().filter_map(|text| text.parse::<ServerAddr>().ok());
    let all = given.iter().cloned().chain(named);
    all.map(|server| (server.host().to_owned(), server.port())).collect()
}

/// Whether a majority of these servers refuses connections.
pub(super) async fn are_down(servers: BTreeSet<(String, u16)>) -> bool {
    let count = servers.len();
    let mut asking: JoinSet<bool> = servers.into_iter().map(refuses).collect();
    let mut refused = 0;
    while let Some(answer) = asking.join_next().await {
        refused += usize::from(answer.unwrap_or(false));
    }
    is_majority(refused, count)
}

const fn is_majority(part: usize, all: usize) -> bool {
    part * 2 > all
}

/// Whether each address of this server refuses a connection.
async fn refuses((host, port): (String, u16)) -> bool {
    let ask = async {
        let mut count = 0;
        for address in tokio::net::lookup_host((host.as_str(), port)).await.ok()? {
            match TcpStream::connect(address).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => count += 1,
                _ => return None,
            }
        }
        (count > 0).then_some(())
    };
    matches!(tokio::time::timeout(TIMEOUT, ask).await, Ok(Some(())))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn refusing() -> (String, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ("127.0.0.1".to_owned(), listener.local_addr().unwrap().port())
    }

    #[test]
    fn a_server_that_is_named_twice_is_one() {
        let given = ["nats://a:4222".parse().unwrap(), "tls://b".parse().unwrap()];
        let named = ["a:4222".to_owned(), "c:1".to_owned(), "no address at all".to_owned()];
        let all: Vec<_> = servers(&given, &named).into_iter().collect();
        assert_eq!(all, [("a".to_owned(), 4222), ("b".to_owned(), 4222), ("c".to_owned(), 1)]);
    }

    #[tokio::test]
    async fn most_servers_must_refuse() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let up = ("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
        let (one, two) = (refusing().await, refusing().await);
        assert!(are_down([one.clone()].into()).await);
        assert!(!are_down([up.clone()].into()).await);
        assert!(!are_down([one.clone(), up.clone()].into()).await);
        assert!(are_down([one, two, up].into()).await);
        assert!(!are_down(BTreeSet::new()).await);
    }
}
