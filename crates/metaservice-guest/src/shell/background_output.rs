//! Outputs of shells that have ended, which processes in the background still have open.
//!
//! Owns their reading ends. If those were closed, a process that somebody left behind would be
//! killed by the first line that it writes (SIGPIPE). What it writes goes nowhere.

use std::sync::Mutex;

use metaservice_private::lock;

use tokio::task::JoinSet;

use super::relay::discard;
use crate::system::streams::End;

/// How many outputs are read at once; each has a descriptor. One more is closed.
const MOST: usize = 256;

/// The outputs that are still open. Dropping this closes them.
#[derive(Debug, Default)]
pub(crate) struct Leftovers(Mutex<JoinSet<()>>);

impl Leftovers {
    /// Reads an output until nobody has it open.
    pub(super) fn take(&self, output: End) {
        let mut outputs = lock(&self.0);
        while outputs.try_join_next().is_some() {}
        if outputs.len() < MOST {
            outputs.spawn(discard(output));
        }
    }
}
