//! The server of the page.
//!
//! [`connections`] accepts a limited number of them, each [`counted`] and with [`tls`] for other
//! hosts. [`guard`] looks at each request, [`routes`] says who may do what. [`assets`] is the page,
//! [`session`] lets a browser in. The rest answers it, some of it over [`sockets`]: [`jobs`],
//! [`log`], [`terminal`], [`files`], [`uploads`] and [`network`] show a job, [`actions`] change it.
//! They share the [`app`], and [`mod@find`] the job that a request means. Errors are [`responses`].

mod actions;
mod app;
mod assets;
mod connections;
mod counted;
mod files;
mod find;
mod guard;
mod jobs;
mod log;
mod network;
mod responses;
mod routes;
mod serve;
mod session;
mod sockets;
mod terminal;
mod tls;
mod uploads;

pub use serve::{BindError, Links, ServeError, Server, Settings};
pub use tls::{Identity, IdentityError, MadeIdentity};
