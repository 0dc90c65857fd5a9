//! The machine's network: its loopback and its card.
//!
//! Owns the order. Both are up and have their addresses and routes before the agent starts, so that
//! its first connection succeeds. The host says the addresses on the kernel's command line: DHCP
//! would cost time at each start.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use super::boot_arguments::BootArguments;
use super::netlink::{
    Link, NetlinkReply, add_address, add_default_route, list_links, parse, turn_on,
};

/// How long the kernel may take to find the card of a driver that was just loaded.
const CARD_TIMEOUT: Duration = Duration::from_secs(10);

/// The multicast group for new links (`RTMGRP_LINK`).
const LINK_GROUP: u32 = 1;

/// Why the network was not set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetworkError {
    #[error("cannot configure the kernel's network")]
    Socket(#[source] io::Error),
    #[error("the machine has no network card")]
    NoCard,
    #[error("cannot {what} {card}")]
    Rejected { what: &'static str, card: String, source: io::Error },
}

/// An rtnetlink socket.
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
            // The default is NETLINK_ROUTE.
            None,
        )
        .map_err(failed)?;
        bind(&socket, &SocketAddrNetlink::new(0, LINK_GROUP)).map_err(failed)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(CARD_TIMEOUT)).map_err(failed)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sets the loopback up, and the card with its address and the default route.
    pub(super) fn connect(&mut self, arguments: &BootArguments) -> Result<(), NetworkError> {
        let links = self.links()?;
        if let Some(loopback) = links.iter().find(|link| link.name == "lo") {
            self.request("turn on", loopback, |n| turn_on(n, loopback.index))?;
        }
        let card = match links.iter().find(|link| link.ethernet) {
            Some(card) => card.clone(),
            None => self.next_card()?,
        };
        let BootArguments { address, gateway, .. } = *arguments;
        self.request("give an address to", &card, |n| add_address(n, card.index, address))?;
        self.request("turn on", &card, |n| turn_on(n, card.index))?;
        match gateway {
            Some(gateway) => {
                let route = |n| add_default_route(n, card.index, gateway);
                self.request("add a route by", &card, route)
            }
            None => Ok(()),
        }
    }

    fn links(&mut self) -> Result<Vec<Link>, NetworkError> {
        self.sequence += 1;
        self.send(&list_links(self.sequence))?;
        let mut links: Vec<Link> = Vec::new();
        loop {
            for reply in self.receive()? {
                match reply {
                    // A link that appears meanwhile is announced and listed.
                    NetlinkReply::Link(link) if links.iter().all(|l| l.index != link.index) => {
                        links.push(link);
                    }
                    NetlinkReply::Link(_) => {}
                    NetlinkReply::Done => return Ok(links),
                    NetlinkReply::Acknowledged(_) => {}
                }
            }
        }
    }

    /// Waits for a card that the kernel announces.
    fn next_card(&self) -> Result<Link, NetworkError> {
        loop {
            for reply in self.receive()? {
                if let NetlinkReply::Link(link) = reply
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
            for reply in self.receive()? {
                match reply {
                    NetlinkReply::Acknowledged(0) => return Ok(()),
                    NetlinkReply::Acknowledged(error) => {
                        let source = io::Error::from_raw_os_error(error);
                        let card = link.name.clone();
                        return Err(NetworkError::Rejected { what, card, source });
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

    fn receive(&self) -> Result<Vec<NetlinkReply>, NetworkError> {
        let mut bytes = vec![0; 64 * 1024];
        match recv(&self.socket, &mut bytes[..], RecvFlags::empty()) {
            Ok((count, _)) => Ok(parse(&bytes[..count])),
            Err(Errno::AGAIN) => Err(NetworkError::NoCard),
            Err(error) => Err(NetworkError::Socket(error.into())),
        }
    }
}
