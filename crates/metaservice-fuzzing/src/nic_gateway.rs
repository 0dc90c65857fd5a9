//! Arbitrary frames of a guest whose card is its router, and an owner of its gateway.
//!
//! Each step is a byte that selects what happens. That of a frame or a segment is followed by its
//! content, which ends with the input or with a length of its own.
use std::net::SocketAddrV4;
use std::time::Duration;

use metaservice_nic::frame::Outgoing;
use metaservice_nic::interface::{AttemptProgress, Interface};
use metaservice_nic::{Config, Datagram, Limits, Network, Unreachable};

/// What an owner has.
#[derive(Default)]
struct Owner {
    answered: Vec<metaservice_nic::interface::AttemptId>,
    open: Vec<metaservice_nic::interface::ConnectionId>,
}

impl Owner {
    fn act(&mut self, step: u8, interface: &mut Interface, now: Duration) {
        let own = SocketAddrV4::new(Network::default().guest, 5000);
        let peer = SocketAddrV4::new([203, 0, 113, 9].into(), u16::from(step / 8));
        match step % 8 {
            1 => {
                if let Some((id, ..)) = interface.attempt() {
                    interface.accept_attempt(id, now);
                    self.answered.push(id);
                }
            }
            2 => {
                let new = interface.attempt().map(|(id, ..)| id);
                let reason = (step & 8 != 0).then_some(Unreachable::Host);
                if let Some(id) = new.or_else(|| self.answered.pop()) {
                    interface.refuse(id, reason);
                }
            }
            3 => self.answered.extend(interface.connect(u16::from(step / 64), peer, now)),
            4 => {
                if let Some(request) = interface.receive_echo() {
                    interface.refuse_echo(&request, Unreachable::TooLarge { mtu: 1500 });
                    interface.answer_echo(request);
                }
                if let Some(Datagram { source, destination, payload }) =
                    interface.receive_datagram()
                {
                    interface.send_unreachable(source, destination, Unreachable::Port);
                    interface.send_datagram(Datagram {
                        source: destination,
                        destination: source,
                        payload,
                    });
                }
            }
            5 => interface.send_unreachable(own, peer, Unreachable::Prohibited),
            6 => {
                let Some(id) = self.open.pop() else { return };
                if step & 8 != 0 {
                    interface.reset(id);
                }
                interface.release(id, now);
            }
            7 if step == 255 => interface.stop_routing(),
            _ => {}
        }
        for id in std::mem::take(&mut self.answered) {
            match interface.attempt_progress(id) {
                AttemptProgress::Pending => self.answered.push(id),
                AttemptProgress::Established(id) => self.open.push(id),
                _ => {}
            }
        }
        for id in &self.open {
            let _ = interface.read(*id, |bytes| bytes.len().min(1000));
            let _ = interface.write(*id, b"from the peer");
        }
    }
}

/// The addresses, hardware and IPv4, of a frame of the guest, so that more of them are taken.
fn address(frame: &mut [u8]) {
    if frame.len() >= 34 && frame[12..14] == [8, 0] && frame[14] == 0x45 {
        frame[..6].copy_from_slice(&metaservice_nic::SERVICE_HARDWARE_ADDRESS);
        frame[26..30].copy_from_slice(&Network::default().guest.octets());
        let length = u16::try_from(frame.len() - 14).unwrap_or(u16::MAX);
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        frame[24..26].fill(0);
        let sum: u32 = frame[14..34]
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let [_, _, checksum @ ..] = (!((folded & 0xffff) + (folded >> 16))).to_be_bytes();
        frame[24..26].copy_from_slice(&checksum);
    }
}

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(bytes: &[u8]) {
    let mut limits = Limits::default();
    (limits.routed_connections, limits.attempts, limits.opens) = (8, 4, 2);
    (limits.connections, limits.half_open) = (8, 4);
    (limits.datagrams, limits.echoes) = (8, 4);
    let config = Config::default().limits(limits).network(Network::default());
    let mut interface = Interface::new(&config, 1);
    let (mut outgoing, mut owner) = (Outgoing::new(), Owner::default());
    let (mut rest, mut now) = (bytes, Duration::ZERO);
    while let Some((&step, after)) = rest.split_first() {
        rest = after;
        if step % 8 == 0 {
            let Some((&length, after)) = rest.split_first() else { break };
            let (frame, after) = after.split_at(after.len().min(usize::from(length)));
            rest = after;
            let mut frame = frame.to_vec();
            if step & 8 == 0 {
                address(&mut frame);
            }
            interface.receive(&frame, now, &mut outgoing);
        }
        owner.act(step, &mut interface, now);
        interface.poll(now, &mut outgoing);
        assert!(outgoing.unsent().len() < 1 << 20);
        outgoing.sent(outgoing.unsent().len());
        while let Some(id) = interface.accept() {
            interface.release(id, now);
        }
        now += Duration::from_millis(u64::from(step));
    }
    assert!(interface.statistics().peak_connections <= 2 * (8 + 4));
    interface.stop_routing();
    for id in owner.answered {
        interface.refuse(id, None);
    }
    assert!(interface.attempt().is_none());
}
