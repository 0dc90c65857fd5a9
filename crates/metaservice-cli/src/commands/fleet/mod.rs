//! The verbs of a queue: jobs on many hosts.

pub(crate) mod artifacts;
pub(crate) mod cancel;
mod causes;
mod connection;
pub(crate) mod drain;
pub(crate) mod follow;
pub(crate) mod jobs;
mod places;
mod reach;
mod report;
pub(crate) mod retry;
mod seal;
mod store;
pub(crate) mod submit;
pub(crate) mod tenants;
pub(crate) mod waiting;
mod warm;
pub(crate) mod worker;
pub(crate) mod workers;

pub(crate) use causes::{exception, loss};
pub(crate) use connection::QueueArgs;
pub(crate) use reach::{MaybeQueue, Reached};
pub(crate) use store::{StoreArgs, Stores};
