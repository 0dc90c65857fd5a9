//! Names and digests of images.

use std::fmt;
use std::str::FromStr;

/// The longest name.
const MAX_NAME: usize = 128;

/// The number of digits of a digest, and the least number that identifies an image.
const DIGITS: usize = 64;
pub(super) const LEAST_DIGITS: usize = 8;

/// The name of the built-in guest, which needs no image.
const RESERVED: &str = "builtin";

/// A text that is not the name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidImageName {
    /// It has other characters, or another length.
    #[error(
        "{0:?} is no name of an image: 1 to {MAX_NAME} letters, digits, dots, dashes and \
         underscores, and a letter or digit first"
    )]
    Spelling(String),
    /// The name belongs to the built-in guest.
    #[error("{RESERVED:?} is the name of the built-in guest")]
    Reserved,
}

/// The name of an image: 1 to 128 letters, digits, dots, dashes and underscores. The first is a
/// letter or a digit. The name is not `builtin`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName(String);

/// The SHA-256 digest of an image's bytes: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageDigest(String);

impl FromStr for ImageName {
    type Err = InvalidImageName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins || text.len() > MAX_NAME || !text.chars().all(fits) {
            return Err(InvalidImageName::Spelling(text.to_owned()));
        }
        if text == RESERVED {
            return Err(InvalidImageName::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for ImageDigest {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == DIGITS && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(())
        }
    }
}

impl ImageName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name for a file: the file's name without the suffix of a format.
    #[must_use]
    pub fn suggested(file: &std::path::Path) -> Option<Self> {
        let mut name = file.file_name()?.to_str()?;
        for ending in [".qcow2", ".raw", ".img", ".disk"] {
            name = name.strip_suffix(ending).unwrap_or(name);
        }
        name.parse().ok()
    }
}

impl ImageDigest {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_name_is_no_path_and_no_option() {
        for name in ["a", "debian-12", "Fedora_40.x", &"x".repeat(MAX_NAME)] {
            assert_eq!(name.parse::<ImageName>().unwrap().as_str(), name);
        }
        for wrong in ["", ".", "..", "-a", "a/b", "a b", "a:b", "\u{e9}", "a\n", &"x".repeat(129)] {
            assert!(
                matches!(wrong.parse::<ImageName>(), Err(InvalidImageName::Spelling(_))),
                "{wrong}"
            );
        }
        assert_eq!("builtin".parse::<ImageName>(), Err(InvalidImageName::Reserved));
    }

    #[test]
    fn a_digest_has_its_digits() {
        let digest: ImageDigest = "0a".repeat(32).parse().unwrap();
        assert_eq!((digest.short(), digest.to_string().len()), ("0a0a0a0a0a0a", 71));
        for wrong in ["", "0A", &"0A".repeat(32), &"0".repeat(63), &"g".repeat(64)] {
            assert!(wrong.parse::<ImageDigest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_suggests_its_name() {
        let suggested = |file: &str| ImageName::suggested(Path::new(file)).map(|name| name.0);
        assert_eq!(
            suggested("/tmp/debian-12-generic-amd64.qcow2").unwrap(),
            "debian-12-generic-amd64"
        );
        assert_eq!(suggested("disk.raw").unwrap(), "disk");
        assert_eq!(suggested("plain").unwrap(), "plain");
        for none in ["/", "..", ".qcow2", "a b.img", "builtin.raw"] {
            assert_eq!(suggested(none), None, "{none}");
        }
    }
}
