//! Measures of host and agent on one machine, over its loopback interface.

use crate::measure::Entry;

/// All of them, in the order of the page.
pub(crate) fn entries() -> Vec<Entry> {
    Vec::new()
}
