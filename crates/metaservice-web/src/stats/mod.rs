//! What the machines of jobs use over time.
//!
//! [`series`] makes points of reports, without I/O. [`samples`] asks the guests.

mod samples;
mod series;

pub(crate) use self::samples::Samples;
