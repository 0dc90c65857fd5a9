//! A web page to watch jobs: their list, and their logs.
//!
//! The page shows what a [`Source`] has, through the control API of each job. It is in the program,
//! and needs no other server. It is for the users of this host alone:
//!
//! - The server listens at a loopback address. A link with a random token lets one browser in.
//! - Requests of other sites are refused, by `Host`, `Origin` and the browser's own headers.
//! - What a guest says is text: nothing of it acts in the page.
//!
//! A log stays on the host. The server knows where some of its lines begin, and the page asks for
//! those that it shows.
//!
//! | module | owns |
//! | --- | --- |
//! | `access` | who may use the server; pure decisions |
//! | `log` | lines, styles, index and search of logs |
//! | `server` | connections, routes, websockets, the files of the page |
//! | [`Source`] | where jobs come from |
//!
//! `page/` has the source of the page, `assets/` what is built of it.

#![forbid(unsafe_code)]

mod access;
mod log;
mod server;
mod source;

pub use server::{BindError, Links, ServeError, Server};
pub use source::{Found, ListedJob, Listing, MAX_JOBS, Source, SourceError};
