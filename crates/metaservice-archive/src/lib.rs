//! A folder as a tar stream, and a tar stream as a folder: synchronous file I/O, no network.
//!
//! [`Packer`] makes an archive that can be begun again in its middle; [`Extractor`] writes one
//! below a folder, and takes it to be hostile.
//!
//! ```
//! let folder = tempfile::tempdir()?;
//! let extractor = metaservice_archive::Extractor::open(folder.path(), Default::default())?;
//! let counts = extractor.extract(&[0_u8; 1024][..])?;
//! assert_eq!(counts.files, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod extract;
mod member;
mod pack;
mod place;
mod sparse;
mod special;

pub use extract::{Counts, Extractor, Limits, Options};
pub use member::{Error, Reason};
pub use pack::{BLOCK, Block, Packed, Packer, Skipped};
pub use sparse::SparseWriter;
pub use special::LeftOut;
