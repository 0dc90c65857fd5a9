//! Files and directories that only this user can change, and files that appear whole.
//!
//! | what | answers |
//! | --- | --- |
//! | [`Directory`] | is this a directory that only its user can change, and are its files? |
//! | [`Partial`], [`PartialDirectory`] | how does a result appear whole, and vanish with its maker? |
//! | [`replace()`] | how does a small file change as a whole? |
//! | [`Location`] | where does this program keep its files? |
//! | [`lock`], [`hex`] | a mutex that may be poisoned; bytes as text |
//! | [`bases`] | where are this user's home, cache, data, runtime and temporary directories? |
//!
//! A [`Directory`] is opened once; everything in it is reached by its descriptor. A link is not
//! followed, a file of another user or with a second name is refused, and a new file is created
//! exclusively. Nothing is created in a directory that others can write.
#![forbid(unsafe_code)]

pub mod bases;
mod directory;
mod hex;
mod location;
mod partial;
mod replace;
mod sync;

pub use directory::{Directory, Objection, PrivateError};
pub use hex::hex;
pub use location::Location;
pub use partial::{Partial, PartialDirectory, remove_tree, sweep};
pub use replace::{replace, replace_unsynced};
pub use sync::lock;
