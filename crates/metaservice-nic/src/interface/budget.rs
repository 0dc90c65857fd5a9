//! How much buffer each connection gets, so that all together stay within one bound.

use crate::config::Limits;

/// The unit of receive buffers: the largest window that an unscaled TCP header can say.
///
/// smoltcp takes the window of its own SYN-ACK, which is never scaled, for a scaled one until
/// its first acknowledgement. With a buffer of 65,535 bytes times a power of two, both
/// readings are the size of the buffer; with any other size a guest could send beyond the
/// end of the buffer and bring the host down.
pub(super) const WINDOW: usize = 65_535;

/// The least that a connection gets to send from.
const LEAST_SEND: usize = 16 * 1024;

/// What even the last of the connections gets in all.
const LEAST: usize = WINDOW + LEAST_SEND;

/// The part of what is spare that one connection takes at most, as a divisor: it leaves room
/// for more, ever less for each.
const SHARE: usize = 8;

/// The part of all buffers that is kept for connections that get the least, as a divisor.
const KEPT: usize = 2;

/// Buffer sizes of one connection in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) receive: usize,
    pub(super) send: usize,
}

impl Grant {
    pub(super) fn total(self) -> usize {
        self.receive + self.send
    }
}

/// How much each direction of one more connection may have beyond the least.
fn share(limits: &Limits, open: usize, reserved: usize) -> usize {
    let left = limits.buffers.saturating_sub(reserved).saturating_sub(LEAST);
    let others = limits.connections.saturating_sub(open).saturating_sub(1);
    let kept = others.saturating_mul(LEAST).min(limits.buffers / KEPT);
    left.saturating_sub(kept) / SHARE / 2
}

/// What a handshake that is told of a receive buffer of this size may want once it is completed.
pub(super) const fn plan(receive: usize) -> usize {
    receive + LEAST_SEND
}

/// The receive buffer for one more connection, while `open` connections have or plan `reserved`
/// bytes. It is not taken by this, and granted later where there is room for it then.
pub(super) fn receive(limits: &Limits, open: usize, reserved: usize) -> usize {
    let receive = limits.receive_buffer.min(WINDOW + share(limits, open, reserved));
    let doublings = (receive / WINDOW).checked_ilog2().unwrap_or(0);
    // smoltcp bounds a window by 1 GiB (RFC 7323).
    WINDOW << doublings.min(14)
}

/// The buffers for one more connection, which was told of a receive buffer of this size; `None` when
/// there are too many connections, or too much of the memory is taken. `planned` is what handshakes
/// that may be completed want: it makes the buffers smaller, and never refuses one.
pub(super) fn grant(
    limits: &Limits,
    open: usize,
    reserved: usize,
    planned: usize,
    receive: usize,
) -> Option<Grant> {
    limits.connections.checked_sub(open)?.checked_sub(1)?;
    let left = limits.buffers.checked_sub(reserved)?.checked_sub(receive)?;
    let share = share(limits, open, reserved.saturating_add(planned));
    let send = limits.send_buffer.min(LEAST_SEND + share).max(LEAST_SEND);
    (left >= LEAST_SEND).then_some(Grant { receive, send: send.min(left) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(limits: &Limits) -> Vec<Grant> {
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
        let grants = fill(&Limits::default());
        assert!((300..1024).contains(&grants.len()), "{}", grants.len());
        assert_eq!(grants[0].receive, 16 * WINDOW);
        assert!(grants[0].send > 1_500_000);
        assert!(grants.iter().all(|grant| grant.total() >= LEAST));
    }

    proptest! {
        #[test]
        fn every_bound_holds(
            connections in 0usize..300, buffers in 0usize..(64 << 20),
            receive_buffer in 0usize..(8 << 20), send_buffer in 0usize..(8 << 20),
        ) {
            let frames = 1;
            let limits =
                Limits { connections, half_open: 8, buffers, receive_buffer, send_buffer, frames };
            let grants = fill(&limits);
            prop_assert!(grants.len() <= connections.min(buffers / LEAST));
            let few = connections.min(buffers / KEPT / LEAST);
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
