//! The source and the destination of a copy.

use std::path::PathBuf;

use anyhow::{Result, ensure};

/// A source or a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// `JOB:PATH`.
    Guest { job: String, path: String },
    /// A path of the host.
    Host(PathBuf),
    /// `-`: a tar archive on standard input or output.
    Stream,
}

impl Place {
    /// Parses `JOB:PATH`, a path or `-`. A path of the host with a colon begins with `/` or `.`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        ensure!(!text.is_empty(), "the source or the destination is empty");
        if text == "-" {
            return Ok(Self::Stream);
        }
        match text.split_once(':') {
            Some((job, path)) if !text.starts_with(['/', '.']) && !job.contains('/') => {
                ensure!(!job.is_empty() && !path.is_empty(), "{text:?} is not JOB:PATH");
                Ok(Self::Guest { job: job.to_owned(), path: path.to_owned() })
            }
            _ => Ok(Self::Host(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_in_a_guest_or_here() {
        let guest = |job: &str, path: &str| Place::Guest { job: job.into(), path: path.into() };
        assert_eq!(Place::parse("a:/b:c").unwrap(), guest("a", "/b:c"));
        assert_eq!(Place::parse("a:b").unwrap(), guest("a", "b"));
        for host in ["./a:b", "/a:b", "a", "x/a:b", "../a:b"] {
            assert_eq!(Place::parse(host).unwrap(), Place::Host(host.into()), "{host}");
        }
        assert_eq!(Place::parse("-").unwrap(), Place::Stream);
        for wrong in ["", ":", "a:", ":b"] {
            assert!(Place::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
