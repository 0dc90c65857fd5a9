//! Why QEMU could not be confined.

use std::io;

/// Why QEMU could not be confined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfineError {
    /// A child could not be confined.
    #[error("cannot confine QEMU")]
    Io(#[from] io::Error),
    /// A step of the confinement failed.
    #[error("cannot confine QEMU: {step}")]
    Step {
        /// The step.
        step: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The Landlock rules could not be created.
    #[error("cannot confine QEMU by Landlock rules")]
    Landlock(#[from] ::landlock::RulesetError),
    /// The system calls of a QEMU with a writable share could not be filtered.
    #[error("cannot filter the system calls of QEMU")]
    Calls(#[from] seccompiler::Error),
}
