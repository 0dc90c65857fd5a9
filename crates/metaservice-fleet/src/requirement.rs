//! What a job needs of its worker, and what a worker has. No I/O.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use metaservice_sandbox::spec::Size;

/// The longest requirement as text, in bytes.
pub const MAX: usize = 256;

/// The most requirements of a job.
pub const MOST: usize = 64;

/// What a job needs of its worker. As text: `mem=8G`, `cpus=4`, or any other text for a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Requirement {
    /// The worker has this label.
    Label(String),
    /// The worker's host has so many bytes of memory.
    Memory(u64),
    /// The worker's host has so many processors.
    Processors(u32),
}

/// Text that is no requirement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRequirement {
    /// It is empty, too long, or has a space, a comma or a control character.
    #[error("a requirement is 1 to {MAX} bytes without spaces and commas, not {0:?}")]
    Text(String),
    /// `mem=` without a size.
    #[error("mem= needs a size such as 8G, not {0:?}")]
    Memory(String),
    /// `cpus=` without a number.
    #[error("cpus= needs a number from 1, not {0:?}")]
    Processors(String),
}

impl FromStr for Requirement {
    type Err = InvalidRequirement;

    fn from_str(text: &str) -> Result<Self, InvalidRequirement> {
        let is_wrong = |c: char| c.is_whitespace() || c.is_control() || c == ',';
        if text.is_empty() || text.len() > MAX || text.contains(is_wrong) {
            return Err(InvalidRequirement::Text(text.to_owned()));
        }
        if let Some(size) = text.strip_prefix("mem=") {
            let size: Size =
                size.parse().map_err(|_| InvalidRequirement::Memory(size.to_owned()))?;
            return Ok(Self::Memory(size.0));
        }
        if let Some(number) = text.strip_prefix("cpus=") {
            let wrong = || InvalidRequirement::Processors(number.to_owned());
            let number: u32 = number.parse().map_err(|_| wrong())?;
            return if number > 0 { Ok(Self::Processors(number)) } else { Err(wrong()) };
        }
        Ok(Self::Label(text.to_owned()))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => formatter.write_str(label),
            Self::Memory(bytes) => write!(formatter, "mem={bytes}"),
            Self::Processors(number) => write!(formatter, "cpus={number}"),
        }
    }
}

/// What a worker has for the requirements of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Features {
    /// Its labels: `arch=`, `os=` and those of its owner.
    pub labels: BTreeSet<String>,
    /// The memory of its host, in bytes. It may use less for its machines.
    pub memory: u64,
    /// The processors of its host.
    pub processors: u32,
}

impl Features {
    /// Whether a worker with these features can run a job that requires this. Text that is no
    /// requirement is never met.
    #[must_use]
    pub fn meet<'a>(&self, require: impl IntoIterator<Item = &'a String>) -> bool {
        require.into_iter().all(|text| text.parse().is_ok_and(|need| self.has(&need)))
    }

    /// Whether a worker with these features has what this requires.
    #[must_use]
    pub fn has(&self, need: &Requirement) -> bool {
        match need {
            Requirement::Label(label) => self.labels.contains(label),
            Requirement::Memory(bytes) => *bytes <= self.memory,
            Requirement::Processors(number) => *number <= self.processors,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Requirement, InvalidRequirement> {
        text.parse()
    }

    #[test]
    fn memory_and_processors_are_numbers_and_all_else_is_a_label() {
        assert_eq!(parsed("mem=8G"), Ok(Requirement::Memory(8 << 30)));
        assert_eq!(parsed("cpus=4"), Ok(Requirement::Processors(4)));
        assert_eq!(parsed("cpus=1"), Ok(Requirement::Processors(1)));
        for label in ["kvm", "arch=aarch64", "memory=8G", "mem", "cpu=4"] {
            assert_eq!(parsed(label), Ok(Requirement::Label(label.to_owned())));
        }
        for size in ["", "x", "-1G", "8Q"] {
            let wrong = InvalidRequirement::Memory(size.to_owned());
            assert_eq!(parsed(&format!("mem={size}")), Err(wrong));
        }
        for number in ["", "0", "-1", "1.5", "4294967296"] {
            let wrong = InvalidRequirement::Processors(number.to_owned());
            assert_eq!(parsed(&format!("cpus={number}")), Err(wrong));
        }
        for text in ["", "a b", "a,b", "a\n", &"x".repeat(MAX + 1)] {
            assert_eq!(parsed(text), Err(InvalidRequirement::Text(text.to_owned())));
        }
    }

    #[test]
    fn a_worker_meets_what_it_has_exactly() {
        let labels = BTreeSet::from(["arch=aarch64".to_owned()]);
        let features = Features { labels, memory: 8 << 30, processors: 4 };
        let meet = |require: &[&str]| {
            features.meet(&require.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        assert!(meet(&[]));
        assert!(meet(&["mem=8G", "cpus=4", "arch=aarch64"]));
        for missing in ["mem=8193M", "cpus=5", "arch=x86_64", "mem=x"] {
            assert!(!meet(&["cpus=1", missing]), "{missing}");
        }
    }

    proptest! {
        #[test]
        fn a_requirement_is_read_as_it_was_written(text in "(mem=|cpus=)?[a-zG0-9=]{0,8}") {
            if let Ok(requirement) = parsed(&text) {
                prop_assert_eq!(parsed(&requirement.to_string()), Ok(requirement));
            }
        }
    }
}
