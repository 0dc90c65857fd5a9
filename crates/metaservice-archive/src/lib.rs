//! A tar stream, written below a folder: synchronous file I/O, no network. The archive is hostile.
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
mod place;

pub use extract::{Counts, Extractor, Limits, Options};
pub use member::{Error, Reason};
