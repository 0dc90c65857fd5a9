//! Archives of a guest that are files of the host.

use std::fs::File;
use std::path::Path;

use metaservice_archive::{ExtractOptions, Extractor};

use super::error::CopyError;

/// Extracts an archive into this directory, which exists. Its content is that of a guest: no member
/// leaves the directory. Its files have at most `max` bytes together. Blocks.
///
/// # Errors
/// [`CopyError::Extract`], or [`CopyError::Io`] if the directory cannot be opened. What was extracted
/// before stays.
pub fn extract(archive: &File, directory: &Path, max: u64) -> Result<(), CopyError> {
    let mut options = ExtractOptions::default();
    options.limits.bytes = max;
    let extractor = Extractor::open(directory, options).map_err(CopyError::Io)?;
    extractor.extract(archive).map(drop).map_err(CopyError::Extract)
}
