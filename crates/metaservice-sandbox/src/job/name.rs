//! Names of jobs.

use std::fmt;
use std::str::FromStr;

/// The name of a job: 1 to 63 ASCII letters, digits and dashes, not beginning with a dash. It is a
/// host name and the name of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobName(String);

/// Text that is no [`JobName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// It has another length or other characters.
    #[error("a name is 1 to {max} letters, digits and dashes, not {0:?}", max = JobName::MAX)]
    Form(String),
    /// It begins with a dash.
    #[error("a name cannot begin with a dash")]
    Dash,
}

impl JobName {
    /// The longest name in characters: the longest label of a host name (RFC 1035, section 2.3.4).
    pub const MAX: usize = 63;

    /// The given name, or one that no other process of this host has.
    pub(crate) fn resolve(name: Option<String>) -> Result<Self, InvalidName> {
        match name {
            Some(name) => name.parse(),
            None => Ok(Self(format!("job-{}", std::process::id()))),
        }
    }

    /// The name, and then the same name with numbers.
    pub(crate) fn variants(&self) -> impl Iterator<Item = Self> + '_ {
        let numbered = (2_u64..).map(|number| Self(format!("{}-{number}", self.0)));
        std::iter::once(self.clone()).chain(numbered).take_while(|name| name.0.len() <= Self::MAX)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if text.is_empty() || text.len() > Self::MAX || !text.chars().all(plain) {
            return Err(InvalidName::Form(text.to_owned()));
        }
        if text.starts_with('-') {
            return Err(InvalidName::Dash);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_label_of_a_host_name() {
        let longest = "x".repeat(JobName::MAX);
        for name in ["a", "job-1", "A9", &longest] {
            assert_eq!(name.parse::<JobName>().unwrap().as_str(), name);
        }
        for wrong in ["", "a b", "a/b", "a.b", "\u{e9}", &format!("{longest}x")] {
            assert_eq!(wrong.parse::<JobName>(), Err(InvalidName::Form(wrong.to_owned())));
        }
        assert_eq!("-a".parse::<JobName>(), Err(InvalidName::Dash));
    }
}
