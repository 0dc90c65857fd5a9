//! Sets of ports, as rules write them.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A set of ports: `443`, `80,443`, `8000-8999`. The default is all ports.
///
/// Port 0 is in no set: nothing can listen on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ports(Vec<RangeInclusive<u16>>);

/// Why a text is no set of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ports are written as 443, 80,443 or 8000-8999, from 1 to 65535")]
pub struct InvalidPorts;

impl Ports {
    /// All ports.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![1..=u16::MAX])
    }

    /// Whether the port is in the set.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// A port of the set.
    pub(crate) fn first(&self) -> u16 {
        self.0.first().map_or(0, |range| *range.start())
    }

    /// Whether these are all ports.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::all()
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self::all()
    }
}

impl FromStr for Ports {
    type Err = InvalidPorts;

    fn from_str(text: &str) -> Result<Self, InvalidPorts> {
        let range = |text: &str| -> Result<RangeInclusive<u16>, InvalidPorts> {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (port(first)?, port(last)?);
            if first > last {
                return Err(InvalidPorts);
            }
            Ok(first..=last)
        };
        text.split(',').map(range).collect::<Result<_, _>>().map(Self)
    }
}

fn port(text: &str) -> Result<u16, InvalidPorts> {
    // The parser of the standard library also takes a plus sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidPorts);
    }
    text.parse().ok().filter(|port| *port != 0).ok_or(InvalidPorts)
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_read_as_it_is_written() {
        for text in ["443", "80,443", "8000-8999", "1-65535", "22,80-90,65535"] {
            assert_eq!(text.parse::<Ports>().unwrap().to_string(), text);
        }
        let ports: Ports = "22,80-90".parse().unwrap();
        let inside: Vec<u16> = (0..=u16::MAX).filter(|port| ports.contains(*port)).collect();
        assert_eq!(inside, [22, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90]);
        assert!("1-65535".parse::<Ports>().unwrap().is_all());
        assert!(!Ports::all().contains(0));
    }

    #[test]
    fn other_texts_are_no_ports() {
        for text in ["", ",", "80,", "0", "65536", "90-80", "-80", "80-", "+80", "http", "8 0", "*"]
        {
            assert_eq!(text.parse::<Ports>(), Err(InvalidPorts), "{text}");
        }
    }
}
