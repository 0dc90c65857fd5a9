//! A web page to watch and touch jobs: their list, logs, terminals, files, statistics and
//! connections.
//!
//! The page shows what a [`Source`] has, through the control API of each job. It is in the program,
//! and needs no other server. It is closed:
//!
//! - The server listens at a loopback address. A link with a random token lets one browser in.
//!   For other hosts it needs TLS, and [`Users`] with tokens and roles.
//! - Requests of other sites are refused, by `Host`, `Origin` and the browser's own headers.
//! - What a guest says is text: nothing of it acts in the page.
//!
//! A log stays on the host. The server knows where some of its lines begin, and the page asks for
//! those that it shows.
//!
//! | module | owns |
//! | --- | --- |
//! | `access` | who may use the server, and do what; pure decisions |
//! | `log` | lines, styles, index and search of logs |
//! | `look` | what kind of file a guest has |
//! | `member` | a file in a directory, as an archive that a guest extracts |
//! | `network` | the attempts of a guest to connect |
//! | `stats` | what machines use, as series of points |
//! | `terminal` | how much a browser gets of a terminal |
//! | `upload` | files that come in parts |
//! | `server` | connections, routes, websockets, the files of the page |
//! | [`Source`] | where jobs come from |
//!
//! `page/` has the source of the page, `assets/` what is built of it.

#![forbid(unsafe_code)]

mod access;
mod log;
mod look;
mod member;
mod network;
mod server;
mod source;
mod stats;
mod terminal;
mod upload;

pub use access::users::{Grant, InvalidRole, InvalidUsers, NewUser, NewUserError, Role, Users};
pub use server::{
    BindError, Identity, IdentityError, Links, MadeIdentity, ServeError, Server, Settings,
};
pub use source::{
    Artifact, ArtifactBody, Attempt, Depth, EndedJob, Fleet, FleetTenant, FleetWorker, Found,
    Image, ListedJob, Listing, MAX_JOBS, Place, Reached, Source, SourceError, Trust, WaitingJob,
};
