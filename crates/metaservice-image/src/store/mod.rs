//! The disk images of a user, by digest and by name.
//!
//! Owns the directory. An image in it appears as a whole, is never written again, and keeps the
//! format that it had when it was imported: what a guest writes into a raw disk is never taken for
//! a header. A process that creates an image locks a directory of its own for it. If the process is
//! killed, the next one that creates an image removes that directory.
//!
//! | path | content |
//! | --- | --- |
//! | `DIGEST/disk` | the image, read-only; DIGEST is the SHA-256 of its bytes |
//! | `DIGEST/manifest` | its format, its attributes, and the notes of the caller |
//! | `names/NAME` | a link to the directory of the image |
//! | `.making-*` | a new image |
//! | `lock` | locked while names or digests change |
//!
//! | module | what it owns |
//! | --- | --- |
//! | `images` | the operations: list, find, import, remove |
//! | `draft` | a new image |
//! | `directory` | paths, lock, names, manifests |
//! | `name` | the spelling of names and digests |

mod directory;
mod draft;
mod error;
mod images;
mod name;

pub use self::directory::StoredImage;
pub use self::draft::ImageDraft;
pub use self::error::StoreError;
pub use self::images::{BrokenImage, ImageStore, Removed};
pub use self::name::{ImageDigest, ImageName, InvalidImageName};

#[cfg(test)]
mod tests;
