//! Arbitrary bytes from QEMU's socket, through the splitter into the card.
//!
//! The first two bytes select the size of the pieces of the stream, and the speed of the clock.
use std::time::Duration;

use metaservice_nic::{
    Config, Limits,
    frame::{Outgoing, Splitter},
    interface::Interface,
};

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(bytes: &[u8]) {
    let Some((&[piece, pace], mut wire)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let mut limits = Limits::default();
    (limits.connections, limits.half_open) = (8, 4);
    let mut interface = Interface::new(&Config::default().limits(limits), 1);
    let (mut splitter, mut outgoing) = (Splitter::new(), Outgoing::new());
    let mut held = Vec::new();
    let mut now = Duration::ZERO;
    while !wire.is_empty() {
        let count = wire.len().min(usize::from(piece) * 8 + 1);
        splitter.unfilled()[..count].copy_from_slice(&wire[..count]);
        splitter.filled(count);
        wire = &wire[count..];
        loop {
            match splitter.next_frame() {
                Ok(Some(frame)) => interface.receive(frame, now, &mut outgoing),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        interface.poll(now, &mut outgoing);
        while let Some(id) = interface.accept() {
            let _ = interface.write(id, b"HTTP/1.1 200 OK\r\n\r\n");
            held.push(id);
        }
        for id in &held {
            let _ = interface.read(*id, |slice| slice.len().min(1000));
        }
        if pace % 4 == 0
            && let Some(id) = held.pop()
        {
            interface.release(id, now);
        }
        assert!(outgoing.unsent().len() < 1 << 20);
        outgoing.sent(outgoing.unsent().len());
        now += Duration::from_millis(u64::from(pace) * 100);
    }
    assert!(interface.statistics().peak_connections <= 8);
}
