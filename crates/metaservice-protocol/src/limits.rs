//! All limits and timings of the protocol.

use std::net::Ipv4Addr;
use std::time::Duration;

/// The address at which a guest reaches the service.
pub const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The port at which a guest reaches the service.
pub const SERVICE_PORT: u16 = 80;

// Actions.

/// How long a poll waits for an action before it is answered with `none`.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a queued action waits for a poll.
pub const PICKUP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a delivered action waits for the start of its reply.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a reply that has started may make no progress.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the host tries an action that can be repeated, if the transport fails.
pub const ACTION_ATTEMPTS: u32 = 3;

/// The maximum size of a list-folder reply, in bytes of JSON.
pub const MAX_FILES_BYTES: usize = 10 * 1024 * 1024;

/// Extension: the maximum size of an action, in bytes of JSON. It has room for a command and an
/// environment of 2 MiB, the limit of `execve`, with every byte escaped.
pub const MAX_ACTION: usize = 16 * 1024 * 1024;

/// The maximum size of an action for an agent without
/// [`Capability::LargeExec`](crate::Capability::LargeExec), in bytes of JSON.
pub const MAX_SMALL_ACTION: usize = 1024 * 1024;

/// The maximum length of an action id, in bytes.
pub const MAX_ACTION_ID: usize = 256;

// Shell streams of version 1.

/// The maximum number of bytes of a shell stream that were sent and not acknowledged.
pub const SHELL_WINDOW: usize = 64 * 1024;

/// The maximum payload of one data message, in bytes.
pub const SHELL_BLOCK: usize = 16 * 1024;

/// The maximum size of a websocket message, in bytes.
pub const SHELL_MESSAGE: usize = 20 * 1024;

/// How often each side sends a websocket ping.
pub const SHELL_PING_INTERVAL: Duration = Duration::from_secs(15);

/// How long a peer may be silent before the stream fails.
pub const SHELL_SILENCE_TIMEOUT: Duration = Duration::from_secs(45);

/// How long a write to a peer may make no progress.
pub const SHELL_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the websocket handshake may take.
pub const SHELL_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How many bytes each end reads from a websocket at once. Each read clears this much memory
/// first, so a larger value is slower.
pub const SHELL_READ: usize = 32 * 1024;

// Shell streams of version 2 (an extension).

/// Extension: [`SHELL_WINDOW`] of version 2.
pub const SHELL2_WINDOW: usize = 1024 * 1024;

/// Extension: [`SHELL_BLOCK`] of version 2.
pub const SHELL2_BLOCK: usize = 64 * 1024;

/// Extension: [`SHELL_MESSAGE`] of version 2.
pub const SHELL2_MESSAGE: usize = SHELL2_BLOCK + 4 * 1024;

// Headers.

/// Extension: the maximum length of the [`RESULT_HEADER`](crate::header::RESULT_HEADER), in bytes.
pub const MAX_RESULT_HEADER: usize = 1024;

/// Extension: the maximum length of an announcement, in bytes.
pub const MAX_ANNOUNCEMENT: usize = 2048;

/// Extension: the maximum number of capabilities that are read from an announcement.
pub const MAX_CAPABILITIES: usize = 64;

/// Extension: the maximum length of a failure's message, in characters.
pub const MAX_FAILURE_MESSAGE: usize = 500;

/// Extension: the maximum size of a failure, in bytes of JSON. It has room for a message with each
/// character escaped.
pub const MAX_FAILURE: usize = 12 * MAX_FAILURE_MESSAGE + 256;

/// Extension: the maximum length of the [`LOG_HEADER`](crate::header::LOG_HEADER), in bytes.
pub const MAX_LOG_HEADER: usize = 512;

// Transfers.

/// Extension: how many connections in a row may break without progress before a read or a write
/// fails. It can be more than [`ACTION_ATTEMPTS`], because no attempt has an effect twice.
pub const TRANSFER_ATTEMPTS: u32 = 6;

/// Extension: the maximum content of one block of a transfer, in bytes.
pub const TRANSFER_BLOCK: usize = 256 * 1024;

/// Extension: the maximum length of a transfer's cursor, in bytes: a path with every byte escaped.
pub const MAX_CURSOR: usize = 8 * 1024;

/// Extension: how long a guest keeps a write whose stream was cut, so that another stream can
/// continue it. It is longer than all attempts of the host together. A host that gives up sends an
/// abort.
pub const WRITE_RESUME_TIMEOUT: Duration = Duration::from_secs(300);

// Logs.

/// Extension: the maximum number of numbered logs of one job.
pub const MAX_LOG_STREAMS: usize = 256;

/// Extension: the maximum size of a numbered log request, in bytes. The guest keeps as much as is
/// not confirmed.
pub const LOG_SEGMENT: u64 = 4 * 1024 * 1024;

/// Extension: how long a numbered log request stays open for more bytes.
pub const LOG_LINGER: Duration = Duration::from_millis(100);

// Lines of JSON.

/// Extension: the maximum length of one line of a reply to list or stats, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// Extension: the minimum interval of stats, in milliseconds.
pub const MIN_STATS_INTERVAL_MS: u32 = 100;

/// Extension: the maximum interval of stats, in milliseconds. It is less than [`STALL_TIMEOUT`].
pub const MAX_STATS_INTERVAL_MS: u32 = 10_000;
