//! A guest at the end of a real socket, as QEMU would be.

use std::time::Duration;

use metaservice_nic::{Config, Driver, Nic, attach, frame::Splitter};
use tokio::{net::UnixStream, time::Instant};

use super::Guest;

pub struct Machine {
    pub guest: Guest,
    pub socket: UnixStream,
    splitter: Splitter,
    unsent: Vec<u8>,
    start: Instant,
}

impl Machine {
    /// A machine, and the card at the other end of its wire.
    pub fn new(guest: Guest, config: Config) -> (Self, Nic, Driver) {
        let (socket, other) = UnixStream::pair().unwrap();
        let (nic, driver) = attach(other, config);
        let start = Instant::now();
        (Self { guest, socket, splitter: Splitter::new(), unsent: Vec::new(), start }, nic, driver)
    }

    /// Runs the guest until `done` says so; it is asked whenever something has happened.
    pub async fn run_until(&mut self, mut done: impl FnMut(&mut Guest) -> bool) {
        loop {
            let now = self.start.elapsed();
            self.guest.poll(now);
            let finished = done(&mut self.guest);
            // What `done` has written wants to be sent before the machine rests.
            self.guest.poll(self.start.elapsed());
            while self.unsent.len() < 256 * 1024
                && let Some(frame) = self.guest.cable.to_service.pop_front()
            {
                self.unsent.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
                self.unsent.extend(frame);
            }
            if finished && self.unsent.is_empty() {
                return;
            }
            let wants_more = !self.guest.cable.to_service.is_empty();
            let delay = match self.guest.delay(self.start.elapsed()) {
                _ if wants_more => Duration::MAX,
                Some(delay) => delay,
                None => Duration::MAX,
            };
            tokio::select! {
                result = self.socket.readable() => {
                    result.unwrap();
                    match self.socket.try_read(self.splitter.unfilled()) {
                        Ok(0) => panic!("the card is gone"),
                        Ok(count) => self.splitter.filled(count),
                        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
                    }
                    while let Some(frame) = self.splitter.next_frame().unwrap() {
                        self.guest.cable.to_guest.push_back(frame.to_vec());
                    }
                }
                result = self.socket.writable(), if !self.unsent.is_empty() => {
                    result.unwrap();
                    if let Ok(count) = self.socket.try_write(&self.unsent) {
                        self.unsent.drain(..count);
                    }
                }
                () = tokio::time::sleep(delay) => {}
            }
        }
    }
}
