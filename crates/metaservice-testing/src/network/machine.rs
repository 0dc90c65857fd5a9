//! Connects a guest to a socket, as QEMU does.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::Instant;

use super::guest::Guest;

/// How many bytes wait for the socket at most.
const UNSENT: usize = 256 * 1024;

/// A [`Guest`] whose cable is a socket. Each frame follows its length, as 4 bytes in big endian.
///
/// It works with a paused clock: time advances when only time can change something.
#[derive(Debug)]
pub struct Machine {
    /// The TCP/IP stack.
    pub guest: Guest,
    /// The socket to the card.
    pub socket: UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    start: Instant,
}

impl Machine {
    /// Returns a machine with `guest` in it, and the socket for the card.
    pub fn new(guest: Guest) -> (Self, UnixStream) {
        let (socket, card) = UnixStream::pair().unwrap();
        let start = Instant::now();
        (Self { guest, socket, received: Vec::new(), unsent: Vec::new(), start }, card)
    }

    /// Runs the guest until `done` returns true. Calls `done` after each event.
    pub async fn run_until(&mut self, mut done: impl FnMut(&mut Guest) -> bool) {
        loop {
            self.guest.poll(self.start.elapsed());
            let finished = done(&mut self.guest);
            // `done` may have written something.
            self.guest.poll(self.start.elapsed());
            self.collect();
            if finished && self.unsent.is_empty() {
                return;
            }
            let waiting = !self.guest.cable.to_service.is_empty();
            let delay = self.guest.delay(self.start.elapsed()).filter(|_| !waiting);
            tokio::select! {
                result = self.socket.readable() => {
                    result.unwrap();
                    self.read();
                }
                result = self.socket.writable(), if !self.unsent.is_empty() => {
                    result.unwrap();
                    if let Ok(count) = self.socket.try_write(&self.unsent) {
                        self.unsent.drain(..count);
                    }
                }
                () = tokio::time::sleep(delay.unwrap_or(Duration::MAX)) => {}
            }
        }
    }

    fn collect(&mut self) {
        while self.unsent.len() < UNSENT
            && let Some(frame) = self.guest.cable.to_service.pop_front()
        {
            self.unsent.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
            self.unsent.extend(frame);
        }
    }

    fn read(&mut self) {
        let mut buffer = vec![0; UNSENT];
        match self.socket.try_read(&mut buffer) {
            Ok(0) => panic!("the card has closed the socket"),
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let mut rest = &self.received[..];
        while let Some((prefix, after)) = rest.split_first_chunk()
            && let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap()
            && let Some((frame, after)) = after.split_at_checked(length)
        {
            self.guest.cable.to_guest.push_back(frame.to_vec());
            rest = after;
        }
        self.received = rest.to_vec();
    }
}
