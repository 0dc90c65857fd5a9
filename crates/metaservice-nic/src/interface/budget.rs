//! The buffer sizes of each connection, within the limit for all of them.

use crate::config::Limits;

/// The unit of receive buffers: the largest window in an unscaled TCP header.
///
/// The window in a SYN-ACK is never scaled. Until its first acknowledgement, smoltcp takes the
/// window of its own SYN-ACK for a scaled one. With a buffer of 65,535 bytes times a power of two,
/// both readings give the size of the buffer. With another size, a guest could send beyond the end
/// of the buffer and crash the host.
pub(super) const WINDOW: usize = 65_535;

/// The smallest send buffer.
const LEAST_SEND: usize = 16 * 1024;

/// The smallest buffers of a connection together.
const LEAST: usize = WINDOW + LEAST_SEND;

/// The largest part of the free memory that one connection gets, as a divisor: the buffers become
/// smaller with each connection.
const SHARE: usize = 8;

/// The limits on the connections of one kind: a part of [`Limits`](crate::Limits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ceiling {
    pub(super) connections: usize,
    /// The bytes of all their buffers.
    pub(super) buffers: usize,
    /// The most of them that is kept for connections with the smallest buffers.
    pub(super) kept: usize,
    pub(super) receive_buffer: usize,
    pub(super) send_buffer: usize,
}

/// Buffer sizes of one connection in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) receive: usize,
    pub(super) send: usize,
}

impl Ceiling {
    /// The limits on connections to the service.
    pub(super) fn service(limits: &Limits) -> Self {
        let Limits { connections, buffers, receive_buffer, send_buffer, .. } = *limits;
        Self { connections, buffers, kept: buffers / 2, receive_buffer, send_buffer }
    }

    /// The limits on connections through the card. A client can have hundreds of them that are
    /// idle, so the first ones get less of the memory.
    pub(super) fn routed(limits: &Limits) -> Self {
        let (connections, buffers) = (limits.routed_connections, limits.routed_buffers);
        Self { connections, buffers, kept: buffers / 4 * 3, ..Self::service(limits) }
    }
}

impl Grant {
    pub(super) fn total(self) -> usize {
        self.receive + self.send
    }
}

/// How much each direction of a new connection gets beyond the smallest size.
fn share(limits: &Ceiling, open: usize, reserved: usize) -> usize {
    let left = limits.buffers.saturating_sub(reserved).saturating_sub(LEAST);
    let others = limits.connections.saturating_sub(open).saturating_sub(1);
    let kept = others.saturating_mul(LEAST).min(limits.kept);
    left.saturating_sub(kept) / SHARE / 2
}

/// What a handshake with this receive buffer may need when it is complete.
pub(super) const fn plan(receive: usize) -> usize {
    receive + LEAST_SEND
}

/// The receive buffer for a new connection, while `open` connections use or plan `reserved` bytes.
/// It is not reserved here, but granted later if there is room.
pub(super) fn receive(limits: &Ceiling, open: usize, reserved: usize) -> usize {
    let receive = limits.receive_buffer.min(WINDOW + share(limits, open, reserved));
    let doublings = (receive / WINDOW).checked_ilog2().unwrap_or(0);
    // smoltcp limits a window to 1 GiB (RFC 7323).
    WINDOW << doublings.min(14)
}

/// The buffers of a new connection, whose receive buffer was announced with this size. `None` if
/// there are too many connections, or too little memory. `planned` is what open handshakes may
/// need: it makes the buffers smaller, but never refuses one.
pub(super) fn grant(
    limits: &Ceiling,
    open: usize,
    reserved: usize,
    planned: usize,
    receive: usize,
) -> Option<Grant> {
    limits.connections.checked_sub(open)?.checked_sub(1)?;
    let left = limits.buffers.checked_sub(reserved)?.checked_sub(receive)?;
    let share = share(limits, open, reserved.saturating_add(planned));
    let send = limits.send_buffer.min(LEAST_SEND + share).max(LEAST_SEND);
    // Of a few sizes (two digits that count), so that a connection can use the buffers of an ended
    // one.
    let digits = send.ilog2() - 1;
    let send = send >> digits << digits;
    (left >= LEAST_SEND).then_some(Grant { receive, send: send.min(left) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_thousand_connections_through_the_card_have_room() {
        let grants = fill(&Ceiling::routed(&Limits::default()));
        assert!((1100..=2048).contains(&grants.len()), "{}", grants.len());
        let thousand: usize = grants[..1000].iter().map(|grant| grant.total()).sum();
        assert!(thousand < 112 << 20, "{thousand} bytes");
        assert_eq!(grants[0], Grant { receive: 16 * WINDOW, send: 2 << 20 });
    }

    fn fill(limits: &Ceiling) -> Vec<Grant> {
        let mut grants: Vec<Grant> = Vec::new();
        let mut reserved = 0;
        while let Some(next) =
            grant(limits, grants.len(), reserved, 0, receive(limits, grants.len(), reserved))
        {
            reserved += next.total();
            grants.push(next);
        }
        assert!(reserved <= limits.buffers);
        grants
    }

    #[test]
    fn a_few_connections_get_all_and_many_get_something() {
        let grants = fill(&Ceiling::service(&Limits::default()));
        assert!((300..1024).contains(&grants.len()), "{}", grants.len());
        assert_eq!(grants[0].receive, 16 * WINDOW);
        assert!(grants[0].send > 1_500_000);
        assert!(grants.iter().all(|grant| grant.total() >= LEAST));
    }

    proptest! {
        #[test]
        fn each_limit_holds(
            connections in 0usize..300, buffers in 0usize..(64 << 20),
            receive_buffer in 0usize..(8 << 20), send_buffer in 0usize..(8 << 20),
        ) {
            let kept = buffers / 2;
            let limits = Ceiling { connections, buffers, kept, receive_buffer, send_buffer };
            let grants = fill(&limits);
            prop_assert!(grants.len() <= connections.min(buffers / LEAST));
            let few = connections.min(kept / LEAST);
            prop_assert!(grants.len() >= few, "{} of {few}", grants.len());
            for grant in grants {
                prop_assert!(grant.receive <= receive_buffer.max(WINDOW));
                prop_assert!(grant.send <= send_buffer.max(LEAST_SEND));
                prop_assert_eq!(grant.receive % WINDOW, 0);
                prop_assert!((grant.receive / WINDOW).is_power_of_two());
            }
        }
    }
}
