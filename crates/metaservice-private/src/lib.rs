//! Files and directories that only their user can change, and files that appear complete.
//!
//! | item | task |
//! | --- | --- |
//! | [`Directory`] | a directory that only its user can change, and checks of its files |
//! | [`PartialFile`], [`PartialDirectory`] | appear complete, and leave nothing after a crash |
//! | [`replace()`] | replaces the content of a small file at once |
//! | [`Location`] | where this program keeps its files |
//! | [`bases`] | the home, cache, data, state and temporary directories of this user |
//! | [`SocketPath`] | the path of a unix socket, of any length |
//! | [`lock`], [`hex`] | a mutex that may be poisoned; bytes as text |
//!
//! A [`Directory`] is opened once, and each file in it is reached by its descriptor. It does not
//! follow links, refuses a file that belongs to another user or has a second link, and creates
//! files exclusively. Nothing is created in a directory that other users can write.
#![forbid(unsafe_code)]

pub mod bases;
mod directory;
mod error;
mod hex;
mod location;
mod partial;
mod replace;
mod socket;
mod sync;
mod tree;

pub use directory::Directory;
pub use error::{NotPrivate, PrivateError};
pub use hex::hex;
pub use location::Location;
pub use partial::{PartialDirectory, PartialFile, sweep};
pub use replace::{replace, replace_unsynced};
pub use socket::SocketPath;
pub use sync::lock;
pub use tree::remove_tree;
