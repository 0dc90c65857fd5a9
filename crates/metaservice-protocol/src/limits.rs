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

/// Extension: the largest action, in bytes of JSON: a command and an environment of 2 MiB as
/// `execve` takes them, every byte escaped, and some.
pub const MAX_ACTION: usize = 16 * 1024 * 1024;

/// The largest action for an agent that has not announced
/// [`LargeExec`](crate::Capability::LargeExec): such an agent reads no more than this.
pub const MAX_SMALL_ACTION: usize = 1024 * 1024;

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

/// Extension: the longest announcement of either side, in bytes.
pub const MAX_ANNOUNCEMENT: usize = 2048;

/// Extension: the most capabilities that are read of an announcement.
pub const MAX_CAPABILITIES: usize = 64;

/// Extension: the longest message of a failure, in characters.
pub const MAX_FAILURE_MESSAGE: usize = 500;

/// Extension: the longest failure, in bytes of JSON: room for every character escaped.
pub const MAX_FAILURE: usize = 12 * MAX_FAILURE_MESSAGE + 256;

/// Extension: [`SHELL_WINDOW`] of the second dialect.
pub const SHELL2_WINDOW: usize = 1024 * 1024;

/// Extension: [`SHELL_BLOCK`] of the second dialect.
pub const SHELL2_BLOCK: usize = 64 * 1024;

/// Extension: [`SHELL_MESSAGE`] of the second dialect.
pub const SHELL2_MESSAGE: usize = SHELL2_BLOCK + 4 * 1024;

/// How much is read of a shell's websocket at once, by either end. Each read costs this much memory
/// to be cleared beforehand, whatever comes, so more is slower.
pub const SHELL_READ: usize = 32 * 1024;

/// Extension: how many connections in a row may break without a byte of progress before a read or
/// a write is given up. More than [`ACTION_ATTEMPTS`]: none of them begins anything twice.
pub const TRANSFER_ATTEMPTS: u32 = 6;

/// Extension: the most bytes of data in one block of a transfer, compressed or not.
pub const TRANSFER_BLOCK: usize = 256 * 1024;

/// Extension: the longest cursor of a transfer, in bytes: a path and some.
pub const MAX_CURSOR: usize = 8 * 1024;

/// Extension: how long a guest keeps a write whose stream was cut, for another to go on with it:
/// more than the host's attempts take together. A host that has given up says so by an abort.
pub const WRITE_PATIENCE: Duration = Duration::from_secs(300);

/// Extension: the longest value of the [`LOG_HEADER`](crate::endpoint::LOG_HEADER), in bytes.
pub const MAX_LOG_HEADER: usize = 512;

/// Extension: how many numbered logs a host keeps apart for one job.
pub const MAX_LOG_STREAMS: usize = 256;

/// Extension: the most bytes of a numbered log request. A guest keeps what is not confirmed.
pub const LOG_SEGMENT: u64 = 4 * 1024 * 1024;

/// Extension: how long a numbered log request is kept open for more bytes.
pub const LOG_LINGER: Duration = Duration::from_millis(100);

/// Extension: the longest line of an answer to list or stats, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// Extension: the least milliseconds between two lines of stats.
pub const MIN_STATS_INTERVAL_MS: u32 = 100;

/// Extension: the most milliseconds between two lines of stats: less than [`STALL_TIMEOUT`].
pub const MAX_STATS_INTERVAL_MS: u32 = 10_000;
