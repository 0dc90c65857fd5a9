//! The errors of policies in files.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use crate::rule::InvalidRule;

use super::source::Source;

/// The most files of a policy, with presets.
pub const MAX_FILES: usize = 64;
/// The most rules of a policy.
pub const MAX_RULES: usize = 10_000;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub from: Source,
    /// The line, from 1.
    pub line: usize,
}

impl Place {
    pub(super) fn of(from: &Source, text: &str, span: Range<usize>) -> Self {
        let before = text.bytes().take(span.start);
        let line = before.filter(|byte| *byte == b'\n').count() + 1;
        Self { from: from.clone(), line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in {}, line {}", self.from, self.line)
    }
}

/// Why a policy cannot be read. `at` is where a file or a preset is included, if it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A file cannot be read. A file that is too large is [`io::ErrorKind::FileTooLarge`].
    #[error("{}cannot read {}", prefix(.at), .path.display())]
    Read {
        /// Where it is included.
        at: Option<Place>,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// There is no such preset.
    #[error("{}there is no preset {name:?}; write a file as ./{name}", prefix(.at))]
    NoPreset {
        /// Where it is included.
        at: Option<Place>,
        /// The name.
        name: String,
    },
    /// A file is no policy.
    #[error("{at}")]
    Invalid {
        /// The line.
        at: Place,
        /// Why.
        #[source]
        cause: InvalidPolicy,
    },
    /// A file includes itself, perhaps through others.
    #[error("{}{} includes itself", prefix(.at), .file)]
    Circle {
        /// The line that closes the circle.
        at: Option<Place>,
        /// The file.
        file: Source,
    },
    /// Too many files.
    #[error("a policy has at most {MAX_FILES} files")]
    TooManyFiles,
    /// Too many rules.
    #[error("a policy has at most {MAX_RULES} rules")]
    TooManyRules,
}

/// What is wrong in a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPolicy {
    /// The file is no TOML, or has a field that policies do not have.
    #[error("{0}")]
    Form(String),
    /// A rule is none.
    #[error("in the rule {rule:?}")]
    Rule {
        /// The rule, as it is written.
        rule: String,
        /// Why.
        #[source]
        cause: InvalidRule,
    },
}

fn prefix(at: &Option<Place>) -> String {
    at.as_ref().map(|at| format!("{at}: ")).unwrap_or_default()
}
