//! A span of time, as people write it: `90`, `90s`, `5m`, `1h30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A span of time that is not zero, of at most 100 years. A number alone is seconds.
///
/// ```
/// use metaservice_sandbox::spec::Period;
///
/// let period: Period = "90".parse()?;
/// assert_eq!(period.to_string(), "1m 30s");
/// # Ok::<(), metaservice_sandbox::spec::InvalidPeriod>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Period(Duration);

/// Text that is no span of time.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPeriod {
    /// Not numbers with units.
    #[error("{text:?} is not a duration; write 90, 0.5s, 5m or 1h30m")]
    Form {
        /// The text.
        text: String,
        /// What is wrong with it.
        #[source]
        cause: humantime::DurationError,
    },
    /// Nothing can run in no time.
    #[error("a duration cannot be zero")]
    Zero,
    /// A clock cannot count so far. The most is [`Period::MAX`].
    #[error("a duration cannot be longer than 100 years")]
    TooLong,
}

impl Period {
    /// The longest: 100 years. A clock can count so far from now.
    pub const MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

    /// A span of time, unless it is zero or too long.
    ///
    /// # Errors
    /// [`InvalidPeriod::Zero`] and [`InvalidPeriod::TooLong`].
    pub fn new(duration: Duration) -> Result<Self, InvalidPeriod> {
        match duration {
            Duration::ZERO => Err(InvalidPeriod::Zero),
            duration if duration > Self::MAX => Err(InvalidPeriod::TooLong),
            duration => Ok(Self(duration)),
        }
    }

    /// For a value that is checked later.
    pub(crate) const fn unchecked(duration: Duration) -> Self {
        Self(duration)
    }

    /// The span of time itself.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for Period {
    type Err = InvalidPeriod;

    fn from_str(text: &str) -> Result<Self, InvalidPeriod> {
        let seconds = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
        let units = if seconds { format!("{text}s") } else { text.to_owned() };
        let duration = humantime::parse_duration(&units)
            .map_err(|cause| InvalidPeriod::Form { text: text.to_owned(), cause })?;
        Self::new(duration)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(formatter)
    }
}

impl TryFrom<String> for Period {
    type Error = InvalidPeriod;

    fn try_from(text: String) -> Result<Self, InvalidPeriod> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_have_units_or_are_seconds() {
        for (text, seconds) in [("90", 90.0), ("90s", 90.0), ("5m", 300.0), ("1h30m", 5400.0)] {
            assert_eq!(text.parse::<Period>().unwrap().get(), Duration::from_secs_f64(seconds));
        }
        for text in ["0.5", "0.5s", "500ms"] {
            assert_eq!(text.parse::<Period>().unwrap().get(), Duration::from_millis(500), "{text}");
        }
        for wrong in ["", "soon", "-1", "5 apples", ".", "1.2.3"] {
            assert!(matches!(wrong.parse::<Period>(), Err(InvalidPeriod::Form { .. })), "{wrong}");
        }
        for zero in ["0", "0s", "0.0"] {
            assert_eq!(zero.parse::<Period>(), Err(InvalidPeriod::Zero));
        }
    }

    #[test]
    fn a_clock_can_count_a_period_from_now() {
        let longest = "100years".parse::<Period>().unwrap();
        assert!(std::time::Instant::now().checked_add(longest.get()).is_some());
        for text in ["101years", "18000000000000000000s"] {
            assert_eq!(text.parse::<Period>(), Err(InvalidPeriod::TooLong), "{text}");
            let json = serde_json::from_value::<Period>(text.into());
            assert!(json.unwrap_err().to_string().contains("longer than 100 years"), "{text}");
        }
        assert!(Period::new(Period::MAX).is_ok());
    }

    #[test]
    fn a_period_is_read_as_it_was_written() {
        for millis in [1, 999, 1000, 90_061_001] {
            let period = Period::new(Duration::from_millis(millis)).unwrap();
            assert_eq!(period.to_string().parse(), Ok(period));
        }
    }
}
