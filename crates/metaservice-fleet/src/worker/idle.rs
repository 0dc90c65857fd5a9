//! Why a worker takes no job. No I/O, no clock.

/// What the host has left for jobs, as measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// The memory that is available, in bytes.
    pub(super) memory: u64,
    /// What is free on the file system of the worker's directory, in bytes.
    pub(super) disk: u64,
}

impl Left {
    /// More than any job needs: nothing was measured.
    pub(super) const UNKNOWN: Self = Self { memory: u64::MAX, disk: u64::MAX };
}

/// Why a worker takes no job, though it may have a free slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A job waits that needs more memory than is left now.
    Memory,
    /// The disk is nearly full.
    Disk,
    /// It ends.
    Draining,
}

impl Reason {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Draining];

    /// Its word in renewals and metrics.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Draining => "draining",
        }
    }
}
