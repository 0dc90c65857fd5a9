//! The way to the guest for datagrams.

use std::net::SocketAddrV4;
use std::sync::Arc;

use crate::network::{Datagram, Unreachable};
use crate::shared::Shared;

/// Sends datagrams to the guest, and says which datagrams of the guest did not arrive.
#[derive(Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Sends a datagram to the guest. It is dropped and counted if it is not for the guest's
    /// address, does not fit into the MTU of the link, or if the guest reads too slowly:
    /// [`Limits::datagrams`](crate::Limits::datagrams).
    pub fn send(&self, datagram: Datagram) {
        self.shared.act(|state| state.interface.send_datagram(datagram));
    }

    /// Tells the guest by an ICMP error that datagrams from `source`, its own end, to `destination`
    /// do not arrive. It is dropped and counted if `source` is not the guest's address, or if the
    /// guest reads too slowly.
    pub fn unreachable(
        &self,
        source: SocketAddrV4,
        destination: SocketAddrV4,
        reason: Unreachable,
    ) {
        self.shared.act(|state| state.interface.send_unreachable(source, destination, reason));
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sender").finish_non_exhaustive()
    }
}
