//! What a copy contains.

use metaservice_archive::LeftOut;

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Content {
    /// Regular files. Unknown for an archive that is passed on unchanged.
    pub files: Option<u64>,
    /// Links.
    pub links: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// What a copy leaves out.
    pub left_out: LeftOut,
}

impl Content {
    /// One file of this length.
    pub(super) fn file(bytes: u64) -> Self {
        Self { files: Some(1), bytes, ..Self::default() }
    }
}
