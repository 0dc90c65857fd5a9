//! Outputs of shells that have ended, which background processes still have open.
//!
//! Owns their reading ends. If those were closed, SIGPIPE would kill a background process at its
//! next write. Its output is discarded.

use std::sync::Mutex;

use metaservice_private::lock;
use tokio::task::JoinSet;

use super::output;
use crate::system::streams::AgentEnd;

/// How many outputs are read at once. Each uses a descriptor; more are closed.
const MAX_OUTPUTS: usize = 256;

/// The outputs that are still open. Dropping this closes them.
#[derive(Debug, Default)]
pub(super) struct BackgroundOutputs(Mutex<JoinSet<()>>);

impl BackgroundOutputs {
    /// Reads and discards an output until no process has it open.
    pub(super) fn take(&self, output: AgentEnd) {
        let mut outputs = lock(&self.0);
        while outputs.try_join_next().is_some() {}
        if outputs.len() < MAX_OUTPUTS {
            outputs.spawn(output::discard(output));
        }
    }
}
