//! Waits for a condition by events.
//!
//! No test sleeps to synchronise, and no test checks a condition in a loop. A test waits for the
//! event that makes the condition true: a line, the exit of a process, a change of a directory.

use std::time::Duration;

/// The longest time that a test waits for one event.
///
/// It is generous, because tests run under software emulation on busy hosts. A test that reaches
/// it has failed. No test asserts that something is faster than this.
pub const TIMEOUT: Duration = Duration::from_secs(240);
