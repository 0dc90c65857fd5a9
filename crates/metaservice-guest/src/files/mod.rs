//! The actions on files: get-artifact, list-folder, list, read, write.
//!
//! Owns access to the guest's files for the host. Files are read and written on the runtime's
//! blocking threads, behind channels of one or two blocks: a slow host slows the disk down, and a
//! slow disk slows the host down. The number of each kind of action that runs at once is limited,
//! so that there is always a free thread.

pub(crate) mod artifact;
mod compression;
mod failure;
mod in_memory;
pub(crate) mod list;
pub(crate) mod list_folder;
mod new_file;
pub(crate) mod read;
mod sink;
mod source;
mod status;
pub(crate) mod write;
