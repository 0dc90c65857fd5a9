//! The machine's network: the card of the service, and on request one to the world.
//!
//! Owns the order: the loopback and the first card are on with their addresses before the agent
//! starts, so that its first connection succeeds. Cards count in the order in which the kernel
//! has found them, which is that of the machine's command line.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use super::boot_arguments::Address;
use super::dhcp;
use super::netlink::{Answer, Link, add_address, add_default_route, list_links, parse, turn_on};
use crate::diagnostics::{chain, say};

/// How long the kernel may take to find the card of a driver that was just loaded.
const CARD_TIMEOUT: Duration = Duration::from_secs(10);

/// New links are announced to this group.
const LINK_GROUP: u32 = 1;

/// The network could not be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetworkError {
    #[error("cannot talk to the kernel's network")]
    Socket(#[source] io::Error),
    #[error("the machine has no network card")]
    NoCard,
    #[error("cannot {what} {card}")]
    Refused { what: &'static str, card: String, source: io::Error },
}

/// A socket to the kernel's network.
pub(super) struct Network {
    socket: OwnedFd,
    sequence: u32,
}

impl Network {
    pub(super) fn open() -> Result<Self, NetworkError> {
        let failed = |error: Errno| NetworkError::Socket(error.into());
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // The default, 0, is the one for links, addresses and routes.
            None,
        )
        .map_err(failed)?;
        bind(&socket, &SocketAddrNetlink::new(0, LINK_GROUP)).map_err(failed)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(CARD_TIMEOUT)).map_err(failed)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Turns the loopback on, and the service's card with its address.
    pub(super) fn connect_service(&mut self, address: Address) -> Result<(), NetworkError> {
        let links = self.links()?;
        if let Some(loopback) = links.iter().find(|link| link.name == "lo") {
            self.request("turn on", loopback, |n| turn_on(n, loopback.index))?;
        }
        let card = match cards(&links).next() {
            Some(card) => card.clone(),
            None => self.next_card()?,
        };
        self.request("give an address to", &card, |n| add_address(n, card.index, address))?;
        self.request("turn on", &card, |n| turn_on(n, card.index))
    }

    /// Connects the second card to the world. Without a world the machine works as well, so
    /// what goes wrong is only said.
    pub(super) async fn connect_world(&mut self) {
        let result = async {
            let links = self.links()?;
            let card = cards(&links).nth(1).ok_or(NetworkError::NoCard)?.clone();
            self.request("turn on", &card, |n| turn_on(n, card.index))?;
            let hardware = card.hardware.as_slice().try_into().unwrap_or([0; 6]);
            let lease = dhcp::lease(&card.name, hardware).await.map_err(|source| {
                NetworkError::Refused {
                    what: "get an address for",
                    card: card.name.clone(),
                    source,
                }
            })?;
            let address = Address { ip: lease.ip, prefix: lease.prefix };
            self.request("give an address to", &card, |n| add_address(n, card.index, address))?;
            if let Some(gateway) = lease.gateway {
                self.request("add a route by", &card, |n| {
                    add_default_route(n, card.index, gateway)
                })?;
            }
            write_resolvers(&lease);
            Ok::<_, NetworkError>(())
        };
        if let Err(error) = result.await {
            say(&format!("no way to the world: {}", chain(&error)));
        }
    }

    fn links(&mut self) -> Result<Vec<Link>, NetworkError> {
        self.sequence += 1;
        self.send(&list_links(self.sequence))?;
        let mut links: Vec<Link> = Vec::new();
        loop {
            for answer in self.receive()? {
                match answer {
                    // One that was announced meanwhile comes twice.
                    Answer::Link(link) if links.iter().all(|known| known.index != link.index) => {
                        links.push(link);
                    }
                    Answer::Link(_) => {}
                    Answer::Done => return Ok(links),
                    Answer::Acknowledged(_) => {}
                }
            }
        }
    }

    /// Waits for a card that the kernel announces.
    fn next_card(&self) -> Result<Link, NetworkError> {
        loop {
            for answer in self.receive()? {
                if let Answer::Link(link) = answer
                    && link.ethernet
                {
                    return Ok(link);
                }
            }
        }
    }

    fn request(
        &mut self,
        what: &'static str,
        link: &Link,
        message: impl FnOnce(u32) -> Vec<u8>,
    ) -> Result<(), NetworkError> {
        self.sequence += 1;
        self.send(&message(self.sequence))?;
        loop {
            for answer in self.receive()? {
                match answer {
                    Answer::Acknowledged(0) => return Ok(()),
                    Answer::Acknowledged(error) => {
                        let source = io::Error::from_raw_os_error(error);
                        let card = link.name.clone();
                        return Err(NetworkError::Refused { what, card, source });
                    }
                    _ => {}
                }
            }
        }
    }

    fn send(&self, message: &[u8]) -> Result<(), NetworkError> {
        let sent = send(&self.socket, message, SendFlags::empty());
        sent.map(drop).map_err(|error| NetworkError::Socket(error.into()))
    }

    fn receive(&self) -> Result<Vec<Answer>, NetworkError> {
        let mut bytes = vec![0; 64 * 1024];
        match recv(&self.socket, &mut bytes[..], RecvFlags::empty()) {
            Ok((count, _)) => Ok(parse(&bytes[..count])),
            Err(Errno::AGAIN) => Err(NetworkError::NoCard),
            Err(error) => Err(NetworkError::Socket(error.into())),
        }
    }
}

fn cards(links: &[Link]) -> impl Iterator<Item = &Link> {
    links.iter().filter(|link| link.ethernet)
}

/// Says who resolves names. A link to a resolver that is not there gives way.
fn write_resolvers(lease: &dhcp::Lease) {
    let text: String = lease.resolvers.iter().map(|ip| format!("nameserver {ip}\n")).collect();
    if text.is_empty() {
        return;
    }
    let file = "/etc/resolv.conf";
    let _ = fs::create_dir_all("/etc");
    let _ = fs::remove_file(file);
    if let Err(error) = fs::write(file, text) {
        say(&format!("cannot write {file}: {error}"));
    }
}
