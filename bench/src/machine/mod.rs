//! Measures in a virtual machine.

use crate::measure::Entry;

/// All of them, in the order of the page.
pub(crate) fn entries() -> Vec<Entry> {
    Vec::new()
}
