//! What the guest reaches: connections, end-points and replies to actions; and for a machine
//! without an agent, the agent's delivery and cloud metadata.
//!
//! Turns HTTP into calls of [`job`](crate::job), and their outcome into responses. Decides
//! nothing about the job.

pub(crate) mod cloud;
pub(crate) mod connection;
pub(crate) mod delivery;
pub(crate) mod endpoints;
pub(crate) mod idle;
pub(crate) mod origin;
pub(crate) mod reception;
pub(crate) mod replies;
