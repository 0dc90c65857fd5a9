//! The location of the guest agent's source, for build scripts that embed the agent.
//!
//! The agent itself is the program of this package: a static Linux binary that runs inside the
//! virtual machine. It is built for the guest, not for the host, so no crate can link it. A build
//! script that embeds the agent names this package as a build dependency without its default
//! features, and builds the program from [`MANIFEST_DIR`] for the guest's target. Without default
//! features this package has no dependencies and this constant is all that is compiled.

#![forbid(unsafe_code)]

/// The directory with the `Cargo.toml` of the agent: in a registry it is read-only.
pub const MANIFEST_DIR: &str = env!("CARGO_MANIFEST_DIR");
