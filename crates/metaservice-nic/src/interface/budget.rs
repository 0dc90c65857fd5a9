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
const LEAST_SEND: usize = 64 * 1024;

/// What even the last of the connections gets in all.
const LEAST: usize = WINDOW + LEAST_SEND;

/// The part of what is spare that one connection takes at most, as a divisor: it leaves room
/// for more, ever less for each.
const SHARE: usize = 8;

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

/// The buffers for one more connection, while `open` connections have `reserved` bytes; `None`
/// when there are too many of either.
pub(super) fn grant(limits: &Limits, open: usize, reserved: usize) -> Option<Grant> {
    let left = limits.buffers.checked_sub(reserved)?.checked_sub(LEAST)?;
    let others = limits.connections.checked_sub(open)?.checked_sub(1)?;
    let spare = left.saturating_sub(others.saturating_mul(LEAST));
    let share = spare / SHARE / 2;
    let receive = limits.receive_buffer.min(WINDOW + share);
    let doublings = (receive / WINDOW).checked_ilog2().unwrap_or(0);
    Some(Grant {
        // smoltcp bounds a window by 1 GiB (RFC 7323).
        receive: WINDOW << doublings.min(14),
        send: limits.send_buffer.min(LEAST_SEND + share).max(LEAST_SEND),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(limits: &Limits) -> Vec<Grant> {
        let mut grants: Vec<Grant> = Vec::new();
        let mut reserved = 0;
        while let Some(next) = grant(limits, grants.len(), reserved) {
            reserved += next.total();
            grants.push(next);
        }
        assert!(reserved <= limits.buffers);
        grants
    }

    #[test]
    fn a_few_connections_get_all_and_many_get_something() {
        let grants = fill(&Limits::default());
        assert_eq!(grants.len(), 1024);
        assert_eq!(grants[0], Grant { receive: 64 * WINDOW, send: 2 << 20 });
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
            prop_assert_eq!(grants.len(), connections.min(buffers / LEAST));
            for grant in grants {
                prop_assert!(grant.receive <= receive_buffer.max(WINDOW));
                prop_assert!(grant.send <= send_buffer.max(LEAST_SEND));
                prop_assert_eq!(grant.receive % WINDOW, 0);
                prop_assert!((grant.receive / WINDOW).is_power_of_two());
            }
        }
    }
}
