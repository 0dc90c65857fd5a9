//! A number of bytes, as people write it: `512`, `10K`, `64M`, `2G`, `1T`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The units, from the largest: each is 1024 of the next.
const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

/// A number of bytes. Its text is exact: the largest unit that divides it.
///
/// ```
/// use metaservice_sandbox::spec::Size;
///
/// assert_eq!("1.5G".parse(), Ok(Size(1536 << 20)));
/// assert_eq!(Size(1536 << 20).to_string(), "1536M");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

/// Text that is no number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSize {
    /// Not a number with a unit.
    #[error("{0:?} is not a size; write 512, 64M, 1.5G or 1T")]
    Form(String),
    /// More than 64 bits count.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

impl FromStr for Size {
    type Err = InvalidSize;

    /// Reads a number with up to nine decimals and a unit, which may end in `B` or `iB`. A part
    /// of a byte is dropped.
    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let form = || InvalidSize::Form(text.to_owned());
        let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(unit);
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(form()),
        };
        let (number, scale) = decimal(number).ok_or_else(form)?;
        let size = (u128::from(number) << shift) / u128::from(scale);
        u64::try_from(size).map(Self).map_err(|_| InvalidSize::TooLarge(text.to_owned()))
    }
}

/// A number with up to nine decimals: its digits, and what to divide them by.
fn decimal(text: &str) -> Option<(u64, u64)> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || text.ends_with('.') {
        return None;
    }
    let decimals = u32::try_from(part.len()).ok().filter(|decimals| *decimals < 10)?;
    Some((format!("{whole}{part}").parse().ok()?, 10_u64.pow(decimals)))
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |shift: u32| self.0 != 0 && self.0.trailing_zeros() >= shift;
        match UNITS.iter().find(|(_, shift)| divides(*shift)) {
            Some((unit, shift)) => write!(formatter, "{}{unit}", self.0 >> shift),
            None => write!(formatter, "{}", self.0),
        }
    }
}

impl TryFrom<String> for Size {
    type Error = InvalidSize;

    fn try_from(text: String) -> Result<Self, InvalidSize> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("7B", 7),
            ("10K", 10 << 10),
            ("10k", 10 << 10),
            ("3mb", 3 << 20),
            ("10MiB", 10 << 20),
            ("2G", 2 << 30),
            ("1T", 1 << 40),
            ("1.5G", 1536 << 20),
            ("0.25K", 256),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_size_is_refused() {
        for wrong in [
            "",
            "G",
            "1X",
            "-1",
            "1.",
            "1.G",
            ".5G",
            "1.2.3G",
            "1,5G",
            "1 G",
            "two",
            "1.0000000000G",
        ] {
            assert_eq!(wrong.parse::<Size>(), Err(InvalidSize::Form(wrong.to_owned())));
        }
        for large in ["99999999T", "16777216T"] {
            assert_eq!(large.parse::<Size>(), Err(InvalidSize::TooLarge(large.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn a_size_is_read_as_it_was_written(bytes: u64) {
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }

        #[test]
        fn no_text_is_a_panic(text in ".{0,40}") {
            let _ = text.parse::<Size>();
        }
    }
}
