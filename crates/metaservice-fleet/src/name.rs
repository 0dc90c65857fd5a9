//! Names of jobs, workers and tenants. Each is one token of a NATS subject and a name of a file.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name in characters.
pub const MAX: usize = 63;

/// Text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to {MAX} letters, digits and dashes, and begins with no dash, not {0:?}")]
pub struct InvalidName(String);

/// What [`check`] allows, as a regular expression.
#[cfg(feature = "schema")]
const PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9-]*$";

fn check(text: &str) -> Result<(), InvalidName> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let fits = !text.is_empty() && text.len() <= MAX && !text.starts_with('-');
    if fits && text.chars().all(plain) { Ok(()) } else { Err(InvalidName(text.to_owned())) }
}

macro_rules! names {
    ($($(#[$meta:meta])* $name:ident;)*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
        #[cfg_attr(feature = "schema", schemars(extend("pattern" = PATTERN, "maxLength" = MAX)))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                check(&text).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    )* };
}

names! {
    /// The id of a job: the client gives it, or it is [random](JobId::random).
    JobId;
    /// The name of a worker. Each worker of a queue needs a name of its own.
    WorkerName;
    /// One life of a worker, from its start to its end: random.
    RunId;
    /// The name of a tenant.
    Tenant;
}

/// 12 random hexadecimal digits.
fn random() -> String {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    metaservice_private::hex(&bytes)
}

impl JobId {
    /// A new id: 12 random hexadecimal digits.
    ///
    /// # Panics
    /// When the system has no random bytes.
    #[must_use]
    pub fn random() -> Self {
        Self(random())
    }
}

impl RunId {
    /// A new life: 12 random hexadecimal digits.
    ///
    /// # Panics
    /// When the system has no random bytes.
    #[must_use]
    pub fn random() -> Self {
        Self(random())
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_token_of_a_subject() {
        let longest = "x".repeat(MAX);
        for name in ["a", "job-1", "A9", &longest] {
            assert_eq!(name.parse::<JobId>().unwrap().as_str(), name);
        }
        for wrong in ["", "-a", "a.b", "*", ">", "a b", "a/b", "\u{e9}", &format!("{longest}x")] {
            assert!(wrong.parse::<JobId>().is_err(), "{wrong}");
            assert!(serde_json::from_value::<Tenant>(wrong.into()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(JobId::random(), JobId::random());
        assert!(JobId::random().as_str().parse::<JobId>().is_ok());
    }
}
