//! One connection of the guest, from its SYN to its record.

use std::pin::pin;
use std::time::Duration;

use metaservice_egress::audit::Reason;
use metaservice_nic::{Attempt, Unreachable};
use rustix::net::sockopt;
use tokio::net::TcpStream;

use crate::dial::{DialError, dial};
use crate::ends::Ends;
use crate::inspect::Inspector;
use crate::relay::End;
use crate::shared::Ticket;

/// How long a connection is silent before the host asks whether its peer is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Dials for an attempt that may begin, answers it, and copies until it ends.
pub(crate) async fn serve(mut ticket: Ticket, mut attempt: Attempt) {
    let mut cut = pin!(ticket.take_cut());
    let dialled = tokio::select! {
        biased;
        () = &mut cut => return refuse(&mut ticket, attempt, Reason::Policy),
        // The guest has given up, and its place is free for another attempt.
        () = attempt.abandoned() => return ticket.end(Reason::Reset),
        dialled = dial(ticket.shared(), &ticket.allowed) => dialled,
    };
    let (peer, address) = match dialled {
        Ok(dialled) => dialled,
        Err(error) => return fail(&mut ticket, attempt, &error),
    };
    let inspection = match ticket.connected(address) {
        Ok(inspection) => inspection,
        Err(reason) => return refuse(&mut ticket, attempt, reason),
    };
    prepare(&peer);
    let accepted = tokio::select! {
        biased;
        // The attempt is dropped, which resets it.
        () = &mut cut => Err(Reason::Policy),
        accepted = attempt.accept() => accepted.map_err(|_| Reason::Reset),
    };
    let mut ends = match accepted {
        Ok(guest) => Ends::new(guest, peer),
        Err(reason) => {
            let _ = peer.set_zero_linger();
            return ticket.end(reason);
        }
    };
    let inspector = Inspector::new(inspection, &ticket.allowed.attempt);
    let (sent, received) = (&mut ticket.record.sent, &mut ticket.record.received);
    let end = tokio::select! {
        biased;
        () = &mut cut => Reason::Policy,
        end = ends.relay(inspector, sent, received) => match end {
            End::Ended => Reason::Ended,
            End::Reset => Reason::Reset,
            End::WrongName => Reason::WrongName,
        },
    };
    match end {
        Reason::WrongName => ticket.deny(end),
        _ => ticket.end(end),
    }
}

fn refuse(ticket: &mut Ticket, attempt: Attempt, reason: Reason) {
    attempt.refuse();
    ticket.deny(reason);
}

/// Tells the guest, at once, why there is no connection.
fn fail(ticket: &mut Ticket, attempt: Attempt, error: &DialError) {
    tracing::debug!(to = %attempt.destination(), %error, "cannot connect");
    error.note(ticket);
    match error {
        DialError::Unresolved | DialError::Unreachable => attempt.unreachable(Unreachable::Host),
        DialError::Refused | DialError::Exhausted | DialError::NotAllowed { .. } => {
            attempt.refuse();
        }
    }
}

/// The options of a connection with a peer. One that cannot be set changes nothing else.
fn prepare(peer: &TcpStream) {
    let _ = peer.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(peer, true);
    let _ = sockopt::set_tcp_keepidle(peer, KEEP_ALIVE);
}
