//! A DHCP client for a machine that lives for one job: one lease, which is never renewed.
//!
//! Owns the messages and the four steps. A DHCP program of the guest would need a script that
//! applies the lease. A guest whose root is a disk or a share may have neither.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::BROADCAST, 67);
const CLIENT: (Ipv4Addr, u16) = (Ipv4Addr::UNSPECIFIED, 68);

/// How long to wait for a response, and how often to send a message.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
const ATTEMPTS: u32 = 4;

const COOKIE: [u8; 4] = [99, 130, 83, 99];
const OPTIONS: usize = 240;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACKNOWLEDGE: u8 = 5;

/// The offer or the lease of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) ip: Ipv4Addr,
    pub(super) prefix: u8,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) resolvers: Vec<Ipv4Addr>,
    kind: u8,
    server: Ipv4Addr,
}

/// Gets a lease for a card that is up and has no address.
pub(super) async fn lease(card: &str, hardware: [u8; 6]) -> io::Result<Lease> {
    let socket = UdpSocket::bind(SocketAddr::from(CLIENT)).await?;
    socket.bind_device(Some(card.as_bytes()))?;
    socket.set_broadcast(true)?;
    let offer = exchange(&socket, hardware, None, OFFER).await?;
    exchange(&socket, hardware, Some(&offer), ACKNOWLEDGE).await
}

/// Sends a message until a response of this kind comes.
async fn exchange(
    socket: &UdpSocket,
    hardware: [u8; 6],
    offer: Option<&Lease>,
    kind: u8,
) -> io::Result<Lease> {
    let message = message(hardware, offer);
    for _ in 0..ATTEMPTS {
        socket.send_to(&message, SocketAddr::from(SERVER)).await?;
        let response = async {
            let mut bytes = [0; 1500];
            loop {
                let (count, _) = socket.recv_from(&mut bytes).await?;
                let lease = parse(&bytes[..count], hardware);
                if let Some(lease) = lease.filter(|lease| lease.kind == kind) {
                    return Ok(lease);
                }
            }
        };
        if let Ok(response) = timeout(RESPONSE_TIMEOUT, response).await {
            return response;
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no DHCP server has answered"))
}

/// A discovery, or with an offer the request for it. The card's address is the transaction id,
/// because there is one transaction at a time.
fn message(hardware: [u8; 6], offer: Option<&Lease>) -> Vec<u8> {
    let mut message = vec![0; OPTIONS];
    // A request, over Ethernet, with addresses of six bytes. The flag asks for a broadcast reply.
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[4..8].copy_from_slice(&hardware[2..]);
    message[10] = 0x80;
    message[28..34].copy_from_slice(&hardware);
    message[236..].copy_from_slice(&COOKIE);
    message.extend([53, 1, if offer.is_some() { REQUEST } else { DISCOVER }]);
    if let Some(offer) = offer {
        message.extend([50, 4]);
        message.extend(offer.ip.octets());
        message.extend([54, 4]);
        message.extend(offer.server.octets());
    }
    // The requested parameters: mask, gateway, resolvers.
    message.extend([55, 3, 1, 3, 6, 255]);
    message
}

fn parse(bytes: &[u8], hardware: [u8; 6]) -> Option<Lease> {
    let matches = bytes.get(..3)? == [2, 1, 6]
        && bytes.get(4..8)? == &hardware[2..]
        && bytes.get(236..OPTIONS)? == COOKIE;
    if !matches {
        return None;
    }
    let mut lease = Lease {
        ip: address(&bytes[16..20])?,
        prefix: 24,
        gateway: None,
        resolvers: Vec::new(),
        kind: 0,
        server: Ipv4Addr::UNSPECIFIED,
    };
    let mut options = &bytes[OPTIONS..];
    while let [code, rest @ ..] = options {
        match code {
            0 => options = rest,
            255 => break,
            _ => {
                let (length, rest) = rest.split_first()?;
                let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                match code {
                    1 => lease.prefix = prefix(address(value)?),
                    3 => lease.gateway = address(value),
                    6 => lease.resolvers = value.chunks_exact(4).filter_map(address).collect(),
                    53 => lease.kind = *value.first()?,
                    54 => lease.server = address(value)?,
                    _ => {}
                }
                options = rest;
            }
        }
    }
    Some(lease)
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    Some(bytes.into())
}

fn prefix(mask: Ipv4Addr) -> u8 {
    u8::try_from(mask.to_bits().leading_ones()).unwrap_or(32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HARDWARE: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn offer() -> Vec<u8> {
        let mut bytes = message(HARDWARE, None);
        bytes[0] = 2;
        bytes[16..20].copy_from_slice(&[10, 0, 2, 15]);
        bytes.truncate(OPTIONS);
        bytes.extend([53, 1, OFFER, 0, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2]);
        bytes.extend([6, 8, 10, 0, 2, 3, 1, 1, 1, 1, 54, 4, 10, 0, 2, 2, 255, 9]);
        bytes
    }

    #[test]
    fn an_offer_is_read_and_requested() {
        let lease = parse(&offer(), HARDWARE).unwrap();
        assert_eq!((lease.ip, lease.prefix), ([10, 0, 2, 15].into(), 24));
        assert_eq!(lease.gateway, Some([10, 0, 2, 2].into()));
        assert_eq!(lease.resolvers, [Ipv4Addr::from([10, 0, 2, 3]), [1, 1, 1, 1].into()]);
        let request = message(HARDWARE, Some(&lease));
        let expected = [53, 1, 3, 50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2, 55, 3, 1, 3, 6, 255];
        assert_eq!(request[OPTIONS..], expected);
    }

    #[test]
    fn messages_for_others_are_ignored() {
        assert_eq!(parse(&offer(), [9; 6]), None);
        assert_eq!(parse(&message(HARDWARE, None), HARDWARE), None);
        assert_eq!(parse(&offer()[..200], HARDWARE), None);
    }

    proptest! {
        #[test]
        fn no_options_panic(options in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = offer();
            bytes.truncate(OPTIONS);
            bytes.extend(options);
            let _ = parse(&bytes, HARDWARE);
        }
    }
}
