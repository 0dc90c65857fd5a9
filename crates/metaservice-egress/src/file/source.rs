//! Where a policy comes from.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a policy comes from: a name of a preset, or a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Source {
    /// A preset.
    Preset(String),
    /// A file.
    File(PathBuf),
}

impl Source {
    /// The source that a text names. A text with a slash or with the suffix `.toml` is a path, and
    /// each other text is the name of a preset.
    ///
    /// ```
    /// use metaservice_egress::file::Source;
    ///
    /// assert_eq!(Source::of("pip"), Source::Preset("pip".to_owned()));
    /// assert_eq!(Source::of("./pip"), Source::File("./pip".into()));
    /// assert_eq!(Source::of("net.toml"), Source::File("net.toml".into()));
    /// ```
    #[must_use]
    pub fn of(text: &str) -> Self {
        match text.contains('/') || text.ends_with(".toml") {
            true => Self::File(text.into()),
            false => Self::Preset(text.to_owned()),
        }
    }

    /// The source of a path, as a user writes it: the name of a preset, if it looks like one.
    #[must_use]
    pub fn of_path(path: &Path) -> Self {
        path.to_str().map_or_else(|| Self::File(path.to_owned()), Self::of)
    }

    /// The source that a file includes. A relative path begins at the directory of the file.
    pub(super) fn included(&self, text: &str) -> Self {
        match (Self::of(text), self) {
            (Self::File(path), Self::File(by)) => {
                Self::File(by.parent().unwrap_or(Path::new("")).join(path))
            }
            (source, _) => source,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preset(name) => write!(f, "the preset {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}
