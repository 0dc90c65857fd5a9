//! The state of one job: its pending actions, log, result, session and limits, and what of it
//! is on the disk.
//!
//! Owns every decision about the job. Knows neither HTTP paths nor who calls.

pub(crate) mod actions;
pub(crate) mod artifact;
pub(crate) mod contact;
pub(crate) mod disk;
pub(crate) mod limits;
pub(crate) mod log;
pub(crate) mod persistence;
pub(crate) mod queue;
pub(crate) mod result;
pub(crate) mod session;
