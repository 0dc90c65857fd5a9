//! attach: the standard input of the job's command.

use serde::{Deserialize, Serialize};

/// attach: carry what the job's command reads on a shell stream.
///
/// It has no option yet. Unknown members are ignored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attach {}
