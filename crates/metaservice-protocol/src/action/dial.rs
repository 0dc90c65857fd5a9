//! dial: a TCP connection from the agent to a port in the guest.

use serde::{Deserialize, Serialize};

/// dial: connect to a TCP port in the guest, and carry its bytes on a shell stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dial {
    /// An IP address, or `localhost`: then the agent tries `127.0.0.1` and `::1`.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}
