//! signal: a signal to the job's main process.

use serde::{Deserialize, Serialize};

/// signal: send a signal to the job's main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The number of the signal on Linux, 1 to 31.
    pub signal: u8,
}
