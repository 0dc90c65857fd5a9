//! The state of one job, and every decision about it.
//!
//! [`Job`](state::Job) puts the parts together: pending actions, log, result, session, limits, and
//! what of them is kept on the disk. The room knows neither paths of HTTP nor who calls it.

pub(crate) mod actions;
pub(crate) mod artifact;
pub(crate) mod body;
pub(crate) mod contact;
pub(crate) mod disk;
pub(crate) mod error;
pub(crate) mod id;
pub(crate) mod input;
pub(crate) mod limits;
pub(crate) mod log;
pub(crate) mod need;
pub(crate) mod persistence;
pub(crate) mod queue;
pub(crate) mod result;
pub(crate) mod session;
pub(crate) mod state;
