//! The server of the page.
//!
//! [`connections`] accepts a limited number of them, [`guard`] looks at each request. [`assets`]
//! is the page, [`session`] lets a browser in, [`jobs`] and [`log`] answer it, also over
//! [`sockets`]. They share the [`app`]. Errors are [`responses`].

mod app;
mod assets;
mod connections;
mod guard;
mod jobs;
mod log;
mod responses;
mod serve;
mod session;
mod sockets;

pub use serve::{BindError, Links, ServeError, Server};
