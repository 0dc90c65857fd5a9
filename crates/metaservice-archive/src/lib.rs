//! Directories as tar streams, and tar streams as directories: synchronous file I/O, no network.
//!
//! [`Packer`] makes an archive that can be resumed in its middle. [`Extractor`] extracts one below
//! a directory, and treats it as hostile. [`SparseWriter`] writes a file with holes.
//!
//! ```
//! use metaservice_archive::{ExtractOptions, Extractor, Packer};
//!
//! let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
//! std::fs::write(from.path().join("file"), "content")?;
//! let mut packer = Packer::open(from.path())?;
//! let mut archive = Vec::new();
//! while let Some(block) = packer.next_block()? {
//!     archive.extend(block.bytes);
//! }
//! let extractor = Extractor::open(to.path(), ExtractOptions::default())?;
//! assert_eq!(extractor.extract(&archive[..])?.files, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod extract;
mod left_out;
mod pack;
mod sparse;

pub use error::{ExtractCause, ExtractError};
pub use extract::{ExtractLimits, ExtractOptions, Extracted, Extractor};
pub use left_out::LeftOut;
pub use pack::{BLOCK, Block, Packed, Packer, Skipped};
pub use sparse::SparseWriter;
