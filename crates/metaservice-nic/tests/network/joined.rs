//! The card without I/O and a guest, joined by a cable of queues, in simulated time.

use std::time::Duration;

use metaservice_nic::{
    Config, Limits, Mtu, StreamError,
    frame::Outgoing,
    interface::{ConnectionId, Interface},
};
use metaservice_testing::network::Guest;
use smoltcp::iface::SocketHandle;

pub(crate) struct Pair {
    pub(crate) interface: Interface,
    pub(crate) outgoing: Outgoing,
    pub(crate) guest: Guest,
    pub(crate) now: Duration,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self::of(&Config::default().limits(limits), Guest::new(Mtu::JUMBO.get()))
    }

    pub(crate) fn of(config: &Config, guest: Guest) -> Self {
        let (interface, outgoing) = (Interface::new(config, 7), Outgoing::new());
        Self { interface, outgoing, guest, now: Duration::ZERO }
    }

    /// Gives the service one frame.
    pub(crate) fn inject(&mut self, frame: &[u8]) {
        self.interface.receive(frame, self.now, &mut self.outgoing);
        self.interface.poll(self.now, &mut self.outgoing);
    }

    /// Takes everything that the service sends. The guest does not get it.
    pub(crate) fn take_output(&mut self) -> Vec<Vec<u8>> {
        let frames = self.outgoing.frames_since(0).map(<[u8]>::to_vec).collect();
        self.outgoing.sent(self.outgoing.unsent().len());
        frames
    }

    /// Moves frames until there are none, without letting time pass.
    pub(crate) fn settle(&mut self) {
        loop {
            self.guest.poll(self.now);
            let silent = self.guest.cable.to_service.is_empty();
            for frame in self.guest.cable.to_service.split_off(0) {
                self.interface.receive(&frame, self.now, &mut self.outgoing);
            }
            self.interface.poll(self.now, &mut self.outgoing);
            let frames = self.take_output();
            if silent && frames.is_empty() {
                return;
            }
            self.guest.cable.to_guest.extend(frames);
        }
    }

    /// Lets time pass, with each timer on the way.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while self.now < end {
            let service = self.interface.deadline();
            let guest = self.guest.delay(self.now).map(|delay| self.now + delay);
            let next = [service, guest].into_iter().flatten().min().unwrap_or(end).min(end);
            self.now = next.max(self.now + Duration::from_millis(1));
            self.settle();
        }
    }

    /// Lets time pass for the service only. Its frames wait for the guest.
    pub(crate) fn freeze(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let next = self.interface.deadline().unwrap_or(end).min(end);
            self.now = next.max(self.now + Duration::from_millis(1));
            self.interface.poll(self.now, &mut self.outgoing);
            let frames = self.take_output();
            self.guest.cable.to_guest.extend(frames);
        }
    }

    pub(crate) fn open(&mut self) -> (SocketHandle, ConnectionId) {
        let handle = self.guest.connect();
        self.settle();
        (handle, self.interface.accept().expect("a connection"))
    }

    pub(crate) fn read(&mut self, id: ConnectionId) -> Result<Option<Vec<u8>>, StreamError> {
        let mut bytes = Vec::new();
        let result = self.interface.read(id, |slice| {
            bytes.extend_from_slice(slice);
            slice.len()
        });
        result.map(|count| count.map(|_| bytes))
    }

    /// Whether a new connection carries bytes both ways.
    pub(crate) fn serves(&mut self) -> bool {
        let (handle, id) = self.open();
        self.guest.send(handle, b"ping");
        self.settle();
        let asked = self.read(id);
        self.interface.write(id, b"pong").unwrap();
        self.interface.release(id, self.now);
        self.guest.tcp(handle).close();
        self.settle();
        let mut answer = Vec::new();
        self.guest.receive(handle, &mut answer);
        asked == Ok(Some(b"ping".to_vec())) && answer == b"pong"
    }
}

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// The memory of this process, in bytes.
pub(crate) fn memory() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// An echo request with 1,000 bytes and a correct checksum.
pub(crate) fn echo_request() -> Vec<u8> {
    let mut ping = vec![8, 0, 0, 0, 0, 1, 0, 1];
    ping.resize(1008, 0);
    let sum = 0x0800u16 + 1 + 1;
    ping[2..4].copy_from_slice(&(!sum).to_be_bytes());
    ping
}
