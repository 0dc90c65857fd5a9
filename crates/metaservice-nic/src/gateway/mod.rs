//! The card as the only router of its guest.
//!
//! Owns the network of the guest, and what passes between the guest and the host: attempts to
//! connect, datagrams and echo requests. It decides nothing: the owner of a [`Gateway`] says what
//! becomes of each. The guest's SYN waits meanwhile. So the guest never sees a connection whose
//! peer is not there.

mod attempt;
mod echo;
mod sender;

use std::future::poll_fn;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::task::{Poll, Waker};

pub use self::attempt::Attempt;
pub use self::echo::Echo;
pub use self::sender::Sender;
use crate::connection::Connection;
use crate::error::ConnectError;
use crate::interface::Interface;
use crate::network::{Datagram, Rejected};
use crate::shared::{CardState, Shared};

/// What passes through the card, except connections to the service.
///
/// Each method can be called while another one waits. Of several tasks in the same method, only the
/// last one is woken.
///
/// What the guest sends is checked: it comes from the guest's own address, is no fragment and has
/// no IPv4 options. Everything else is dropped and [counted](crate::Statistics::dropped), as are
/// IPv6 and packets to other hardware addresses. [`Gateway::rejected`] says what the guest wanted.
/// The destination can be each address of a single host, also that of the card itself
/// ([`Network::router`](crate::Network::router)).
///
/// The card reassembles nothing and fragments nothing. TCP connections end here, so their path MTU
/// is that of the link, which each side announces. A datagram is as large as the MTU of the link
/// allows, which can be more than the path of the host: then the host fragments it, or its owner
/// answers [`Unreachable::TooLarge`](crate::Unreachable::TooLarge).
///
/// Dropping it refuses each attempt at once, and those that come later, and drops datagrams.
/// Connections stay open.
pub struct Gateway {
    shared: Arc<Shared>,
}

impl Gateway {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The next attempt of the guest to connect. `None` if the driver has ended.
    ///
    /// Cancel-safe.
    pub async fn attempt(&self) -> Option<Attempt> {
        let next = self.next(Interface::attempt, |state| &mut state.attempter).await?;
        Some(Attempt::new(Arc::clone(&self.shared), next))
    }

    /// The next datagram of the guest. `None` if the driver has ended.
    ///
    /// Datagrams that come faster than they are taken are dropped and counted:
    /// [`Limits::datagrams`](crate::Limits::datagrams). Cancel-safe.
    pub async fn receive(&self) -> Option<Datagram> {
        self.next(Interface::receive_datagram, |state| &mut state.receiver).await
    }

    /// The next echo request of the guest to an address behind the card. `None` if the driver has
    /// ended. The card itself answers those to its own addresses.
    ///
    /// Requests that come faster than they are taken are dropped and counted:
    /// [`Limits::echoes`](crate::Limits::echoes). Cancel-safe.
    pub async fn echo(&self) -> Option<Echo> {
        let request = self.next(Interface::receive_echo, |state| &mut state.echoer).await?;
        Some(Echo::new(Arc::clone(&self.shared), request))
    }

    /// The next thing of the guest that was rejected, because of the form of its packet. `None` if
    /// the driver has ended.
    ///
    /// The card has already answered where the guest can get an answer. What comes faster than it
    /// is taken is counted: [`Rejected::missed`]. Cancel-safe.
    pub async fn rejected(&self) -> Option<Rejected> {
        self.next(Interface::receive_rejected, |state| &mut state.rejecter).await
    }

    async fn next<T>(
        &self,
        take: impl Fn(&mut Interface) -> Option<T>,
        waker: impl Fn(&mut CardState) -> &mut Option<Waker>,
    ) -> Option<T> {
        poll_fn(|context| {
            let mut state = self.shared.lock();
            if let Some(item) = take(&mut state.interface) {
                return Poll::Ready(Some(item));
            }
            if state.closed {
                return Poll::Ready(None);
            }
            *waker(&mut state) = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Connects to a TCP port of the guest, which sees that the connection comes from `source`. If
    /// the port of `source` is 0, the card chooses one.
    ///
    /// It completes when the guest has answered, and after half a minute at the latest. Dropping
    /// the future ends the attempt.
    ///
    /// # Errors
    /// [`ConnectError::Refused`] if the guest refuses it. [`ConnectError::NoAnswer`] if it says
    /// nothing, for example because it boots. The others at once.
    pub async fn connect(
        &self,
        port: u16,
        source: SocketAddrV4,
    ) -> Result<Connection, ConnectError> {
        attempt::call(&self.shared, port, source).await
    }

    /// A handle that sends datagrams to the guest.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender::new(Arc::clone(&self.shared))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.routing = false;
        state.interface.stop_routing();
        // If there is no connection, the driver must notice that it can end.
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Gateway").finish_non_exhaustive()
    }
}
