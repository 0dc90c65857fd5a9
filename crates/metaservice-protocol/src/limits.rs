//! Every bound and timing of the protocol, in one place.

use std::time::Duration;

/// The address at which a guest reaches the service.
pub const SERVICE_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 169, 254);

/// The port at which a guest reaches the service.
pub const SERVICE_PORT: u16 = 80;

/// How long a poll waits for an action before it is answered with `none`.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a queued action waits for a poll to take it.
pub const PICKUP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a delivered action waits for its reply to start.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a reply that has started may go without a byte.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How often an action other than exec-shell is tried when the transport fails.
pub const ACTION_ATTEMPTS: u32 = 3;

/// The largest list-folder reply, in bytes of JSON.
pub const MAX_FILES_BYTES: usize = 10 * 1024 * 1024;

/// The longest action id that a guest accepts, in bytes.
pub const MAX_ACTION_ID: usize = 256;

/// The most bytes of a shell stream that may be sent and not yet acknowledged.
pub const SHELL_WINDOW: usize = 64 * 1024;

/// The most payload bytes in one shell data message.
pub const SHELL_BLOCK: usize = 16 * 1024;

/// The largest websocket message of a shell stream, in bytes.
pub const SHELL_MESSAGE: usize = 20 * 1024;

/// How often each side of a shell stream sends a websocket ping.
pub const SHELL_PING_INTERVAL: Duration = Duration::from_secs(15);

/// How long a shell peer may be silent before it is given up.
pub const SHELL_SILENCE_TIMEOUT: Duration = Duration::from_secs(45);

/// How long a write to a shell peer may make no progress.
pub const SHELL_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the websocket handshake of a shell may take.
pub const SHELL_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest value of the [`RESULT_HEADER`](crate::endpoint::RESULT_HEADER), in bytes.
pub const MAX_RESULT_HEADER: usize = 1024;
