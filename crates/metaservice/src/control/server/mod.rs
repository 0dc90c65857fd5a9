//! The server: requests become calls of the handle, and their outcomes responses.

pub(crate) mod attach;
mod described;
pub(crate) mod description;
mod extract;
pub(crate) mod files;
pub(crate) mod gateway;
pub(crate) mod job;
pub(crate) mod jobs;
pub(crate) mod network;
mod observed;
mod responses;
pub(crate) mod run;
pub(crate) mod serve;
mod served;
pub(crate) mod streams;
