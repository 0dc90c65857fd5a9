//! The two ends of a connection, and how they are closed.

use metaservice_nic::Connection;
use tokio::net::TcpStream;

use crate::inspect::Inspector;
use crate::relay::{End, relay};

/// The guest's connection and the one of the host. Dropping them resets both, unless both
/// directions have ended in order: neither side takes a part of the data for all of it.
pub(crate) struct Ends {
    guest: Option<Connection>,
    peer: TcpStream,
    ended: bool,
}

impl Ends {
    pub(crate) fn new(guest: Connection, peer: TcpStream) -> Self {
        Self { guest: Some(guest), peer, ended: false }
    }

    /// Copies until both directions have ended: see [`relay`].
    pub(crate) async fn relay(
        &mut self,
        inspector: Inspector,
        sent: &mut u64,
        received: &mut u64,
    ) -> End {
        let Some(guest) = &mut self.guest else { return End::Reset };
        let end = relay(guest, &mut self.peer, inspector, sent, received).await;
        self.ended = end == End::Ended;
        end
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let _ = self.peer.set_zero_linger();
        if let Some(guest) = self.guest.take() {
            guest.reset();
        }
    }
}
