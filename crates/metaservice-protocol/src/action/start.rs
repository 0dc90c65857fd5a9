//! start: the command of a job that holds it.

use serde::{Deserialize, Serialize};

/// start: start the job's command, if the job [holds](crate::Execute::hold) it. It has no option.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartOptions {}
