//! A hostile guest. The memory of the host has a limit, and other jobs are served.

mod files;
mod requests;

use std::io::Write;
use std::net::TcpStream;

use metaservice_testing::cli::{Cli, Service};
use rustix::process::Signal;

use crate::METASERVICE;

/// The memory of a service for one job, in bytes, whatever its guest does.
const MEMORY: u64 = 96 * 1024 * 1024;

/// More than sockets, buffers and windows hold, in bytes. A service that reads more than this of an
/// invalid request reads everything.
const BUFFERED: usize = 16 << 20;

/// A service under attack, and a job that has to be served meanwhile.
struct Attack {
    service: Service,
    other: Service,
    // After the services, because it checks what they leave.
    cli: Cli,
}

impl Attack {
    fn new(args: &[&str]) -> Self {
        let cli = Cli::new(METASERVICE);
        let serve = |name: &str, args: &[&str]| {
            cli.serve(&[&["--name", name][..], args, &["true"]].concat())
        };
        let (service, other) = (serve("attacked", args), serve("other", &[]));
        Self { service, other, cli }
    }

    /// Checks that the service and the other job are served within the limit of memory.
    #[track_caller]
    fn assert_harmless(self) {
        self.other.assert_serving();
        self.service.assert_serving();
        let memory = self.service.peak_memory().expect("it serves");
        assert!(memory < MEMORY, "{memory} bytes of memory");
        self.service.stop(Signal::TERM);
        self.other.stop(Signal::TERM);
        drop(self.cli);
    }
}

/// Sends `block` until the peer closes the connection. Returns how many bytes it has accepted.
fn flood(mut stream: &TcpStream, block: &[u8]) -> usize {
    let mut sent = 0;
    while let Ok(count @ 1..) = stream.write(block) {
        sent += count;
        assert!(sent < 1 << 30, "the connection stays open");
    }
    sent
}
