//! The host's actions: polls, and what serves each action.
//!
//! Owns the way from a poll to the module that serves the action. Each action is a task of its own,
//! so that no action delays another, the polls or the job.

mod dial;
pub(crate) mod dispatch;
pub(crate) mod poll;
mod stats;
