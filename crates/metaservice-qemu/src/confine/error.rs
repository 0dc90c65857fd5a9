//! Why QEMU could not be confined.

use std::io;

/// A host that does not keep what it offers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfineError {
    /// A child could not be confined.
    #[error("cannot confine QEMU")]
    Io(#[from] io::Error),
    /// A step of it failed.
    #[error("cannot confine QEMU: {step}")]
    Step {
        /// Which.
        step: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Landlock's rules could not be made.
    #[error("cannot confine QEMU by Landlock rules")]
    Landlock(#[from] ::landlock::RulesetError),
}
