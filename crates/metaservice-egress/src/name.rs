//! Domain names, in the one form that rules, queries and requests are compared in.

use std::fmt;
use std::str::FromStr;

/// The longest name, without the final dot (RFC 1035, 2.3.4).
const MAX_NAME: usize = 253;
/// The longest label (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// A domain name: lower case, without the final dot, labels of letters, digits, `-` and `_`.
///
/// Two spellings of one name are one value. A text that a resolver could read as an address, such
/// as `127.1` or `0x7f.1`, is no name.
///
/// ```
/// use metaservice_egress::DomainName;
///
/// let name: DomainName = "Www.Example.org.".parse()?;
/// assert_eq!(name.as_str(), "www.example.org");
/// assert!("127.1".parse::<DomainName>().is_err());
/// # Ok::<(), metaservice_egress::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(Box<str>);

/// Why a text is no domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// There is no label, or a label is empty.
    #[error("a label of the name is empty")]
    Empty,
    /// The name or a label is too long.
    #[error("a name has at most 253 characters, and a label at most 63")]
    TooLong,
    /// A character is not allowed.
    #[error(
        "a name consists of letters, digits, '-', '_' and dots; write others in punycode (xn--)"
    )]
    Character,
    /// A label begins or ends with a hyphen.
    #[error("a label does not begin or end with '-'")]
    Hyphen,
    /// Resolvers read it as an address.
    #[error("this looks like an address; write an IPv4 address as A.B.C.D")]
    Address,
}

impl DomainName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name is below `parent`. A name is not below itself.
    #[must_use]
    pub fn is_below(&self, parent: &Self) -> bool {
        self.0.strip_suffix(&*parent.0).is_some_and(|labels| labels.ends_with('.'))
    }

    /// The name that this one describes: `_http._tcp.a.example` is about `a.example` (RFC 8552).
    /// `None`: it is no such name.
    #[must_use]
    pub fn subject(&self) -> Option<Self> {
        let mut rest = self.as_str();
        while let Some((label, after)) = rest.split_once('.')
            && label.starts_with('_')
        {
            rest = after;
        }
        // What is left is a name too, unless it looks like an address.
        if rest.len() < self.0.len() { rest.parse().ok() } else { None }
    }

    /// Whether a name is that by which a guest reaches the loopback interface of the host. Some
    /// resolvers of guests do not ask for a name without a dot.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self.as_str(), "host" | "host.internal")
    }

    /// Whether a name stands for the host that resolves it (RFC 6761, 6.3).
    pub(crate) fn is_loopback(&self) -> bool {
        self.as_str() == "localhost" || self.as_str().ends_with(".localhost")
    }
}

impl FromStr for DomainName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.len() > MAX_NAME {
            return Err(InvalidName::TooLong);
        }
        let mut last = "";
        for label in text.split('.') {
            check_label(label)?;
            last = label;
        }
        if is_number(last) {
            return Err(InvalidName::Address);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

fn check_label(label: &str) -> Result<(), InvalidName> {
    if label.is_empty() {
        return Err(InvalidName::Empty);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !label.bytes().all(allowed) {
        return Err(InvalidName::Character);
    }
    if label.len() > MAX_LABEL {
        return Err(InvalidName::TooLong);
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(InvalidName::Hyphen);
    }
    Ok(())
}

/// Whether a name that ends with this label is an IPv4 address for `inet_aton` and for browsers.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for DomainName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for DomainName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for DomainName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    #[test]
    fn spellings_of_one_name_are_one_value() {
        for spelling in ["a.example", "A.Example", "a.EXAMPLE."] {
            assert_eq!(name(spelling), name("a.example"));
        }
    }

    #[test]
    fn a_name_of_a_service_is_about_the_name_behind_it() {
        for text in ["_http._tcp.a.example", "_443._https.a.example", "_x.a.example"] {
            assert_eq!(name(text).subject(), Some(name("a.example")), "{text}");
        }
        for text in ["a.example", "b._tcp.a.example", "_tcp"] {
            assert_eq!(name(text).subject(), None, "{text}");
        }
        assert!(name("_a._b.1x").subject().is_some());
    }

    #[test]
    fn addresses_in_any_form_are_no_names() {
        for text in ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "a.0x", "1.2.3"] {
            assert_eq!(text.parse::<DomainName>(), Err(InvalidName::Address), "{text}");
        }
        // A number is a label like others anywhere else.
        name("1.a");
        name("0x7f.a");
    }

    #[test]
    fn other_texts_are_no_names() {
        let long_label = "a".repeat(64);
        let long_name = ["abc"; 64].join(".");
        for (text, why) in [
            ("", InvalidName::Empty),
            (".", InvalidName::Empty),
            ("a..b", InvalidName::Empty),
            (".a", InvalidName::Empty),
            ("a..", InvalidName::Empty),
            ("a b", InvalidName::Character),
            ("ä.example", InvalidName::Character),
            ("[::1]", InvalidName::Character),
            ("a\0b", InvalidName::Character),
            ("-a.b", InvalidName::Hyphen),
            ("a-.b", InvalidName::Hyphen),
            (&long_label, InvalidName::TooLong),
            (&long_name, InvalidName::TooLong),
        ] {
            assert_eq!(text.parse::<DomainName>(), Err(why), "{text}");
        }
    }

    #[test]
    fn a_name_is_below_its_parents_only() {
        assert!(name("a.b.example").is_below(&name("example")));
        assert!(name("a.b.example").is_below(&name("b.example")));
        assert!(!name("b.example").is_below(&name("b.example")));
        assert!(!name("bb.example").is_below(&name("b.example")));
        assert!(!name("example").is_below(&name("b.example")));
    }

    proptest! {
        #[test]
        fn a_name_is_read_as_it_is_written(text in ".{0,80}") {
            if let Ok(name) = text.parse::<DomainName>() {
                prop_assert_eq!(name.as_str().parse::<DomainName>(), Ok(name.clone()));
                prop_assert!(name.as_str().parse::<std::net::IpAddr>().is_err());
            }
        }
    }
}
