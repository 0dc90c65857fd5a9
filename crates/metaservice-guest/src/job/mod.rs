//! The job: claimed, started or taken up again, followed to its end, reported.
//!
//! Owns what the agent does for the one job of its machine, from the claim to the result. It does
//! not run the command: that is the task of a [supervisor](crate::supervise).

pub(crate) mod control;
pub(crate) mod pending_replies;
mod rehearsal;
mod renewal;
pub(crate) mod run;
pub(crate) mod session;
