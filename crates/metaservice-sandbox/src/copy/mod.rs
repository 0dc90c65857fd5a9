//! Copies of files and directories between the host and a guest, with the rules of `docker cp`.
//!
//! The verb `cp`, `--copy-in` and artifacts use the same copies. The guest is reached through the
//! service in this process or through the control socket of a job: see [`Guest`].
//!
//! A copy is written beside its destination and renamed into place when it is complete. A copy that
//! fails or is dropped leaves nothing behind. Only a directory that exists already is filled in
//! place, file by file.
//!
//! An archive from a guest is hostile: no member leaves the directory of the copy.

mod archive;
mod beside;
mod content;
mod error;
mod extract;
mod fetch;
mod guest;
mod how;
mod observer;
pub mod place;
mod send;
mod whole;

pub use metaservice_archive::LeftOut;

pub use self::content::Content;
pub use self::error::{CopyError, PlaceError};
pub use self::extract::extract;
pub use self::fetch::{Fetched, Opened, fetch};
pub use self::guest::{Body, Guest};
pub use self::how::How;
pub use self::observer::{Observer, Step};
pub use self::send::{GuestTarget, send};
