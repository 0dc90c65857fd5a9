//! Files and folders between a guest and here, with the words of `docker cp`.
//!
//! What comes is written beside its destination and renamed into place when it is whole:
//! a copy that fails or is interrupted leaves nothing behind. Only a folder that exists already
//! is filled in place, file by file.

mod beside;
mod fetch;
mod folder;
mod place;
mod send;

pub(crate) use self::fetch::fetch;
pub(crate) use self::place::Place;
pub(crate) use self::send::send;
