//! A strict version 1 host, written from the protocol page, and the real agent that it serves.
//!
//! The host serves the end-points of the page and knows no extension. It records each request that
//! the page does not allow; [`Agent::stop`] fails if there was one.
//!
//! ```no_run
//! use metaservice_testing::host::{Agent, Host};
//!
//! # async fn example(agent: &str) {
//! let host = Host::start(&["echo", "hello"]).await;
//! let agent = Agent::start(agent, &host).await;
//! assert!(host.result().await.0);
//! assert_eq!(host.log_text(), "hello\n");
//! agent.stop().await;
//! # }
//! ```

mod agent;
mod job;
mod reply;
mod server;
mod shell;

pub use agent::Agent;
pub use job::{Artifact, Held, Host, make_fifo, read_artifact, shell_of};
pub use reply::Reply;
pub use shell::Shell;
