//! Random text that its owner proves to know.

use std::fmt;

use subtle::ConstantTimeEq;

/// The number of its random bytes.
const BYTES: usize = 32;

/// 32 random bytes, as text of 64 hexadecimal digits.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self::of(bytes))
    }

    /// The secret of these bytes.
    pub(crate) fn of(bytes: [u8; BYTES]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The text. It is for its owner alone.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether the text is that of the secret. The time that this takes does not say how much of
    /// it is right.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_whole_text_is_right() {
        let secret = Secret::random().unwrap();
        let text = secret.reveal().to_owned();
        assert_eq!(text.len(), 64);
        assert!(secret.is(&text));
        for wrong in ["", &text[..63], &format!("{text}0"), Secret::random().unwrap().reveal()] {
            assert!(!secret.is(wrong), "{wrong}");
        }
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
