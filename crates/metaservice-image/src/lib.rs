//! Disk images of virtual machines: which ones a machine may open, and a store that keeps them.
//!
//! This crate owns the formats of disk images and the directory in which a user's images are kept.
//! It does not know QEMU's command line, machines or jobs: it yields a [`Disk`], which is a path
//! and a format that was found before a guest could write the image.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `disk` | the check of an image's first bytes |
//! | `qcow2` | the header of that format |
//! | `store` | the images of a user, by name and digest |
//! | `copy` | copies and digests of large files |

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod copy;
mod disk;
mod qcow2;
mod store;

pub use copy::Observer;
pub use disk::{Disk, DiskError, Format};
pub use store::{
    BrokenImage, ImageDigest, ImageDraft, ImageName, ImageStore, InvalidImageName, Removed,
    StoreError, StoredImage,
};
