//! What kind of file a guest has, by its bytes. It does no I/O.

use serde::Serialize;

/// The most bytes of a text that are shown.
pub(crate) const MAX_TEXT: usize = 256 * 1024;

/// The most bytes of a picture that is shown.
pub(crate) const MAX_PICTURE: usize = 8 * 1024 * 1024;

/// What is shown of a file.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub(crate) enum Look {
    /// It begins with this text.
    Text { text: String, size: u64, cut: bool },
    /// It is a picture.
    Picture { size: u64 },
    /// It is something else.
    Binary { size: u64 },
}

impl Look {
    /// A file of this size that begins with these bytes, [`MAX_TEXT`] at most.
    pub(crate) fn at(begin: Vec<u8>, size: u64) -> Self {
        if picture(&begin).is_some() {
            return Self::Picture { size };
        }
        let size = size.max(begin.len() as u64);
        let cut = size > begin.len() as u64;
        match text(begin, cut) {
            Some(text) => Self::Text { text, size, cut },
            None => Self::Binary { size },
        }
    }
}

/// The bytes as text. A last character that was cut is left out.
fn text(bytes: Vec<u8>, cut: bool) -> Option<String> {
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.utf8_error();
            if !cut || at.error_len().is_some() {
                return None;
            }
            let mut bytes = error.into_bytes();
            bytes.truncate(at.valid_up_to());
            String::from_utf8(bytes).ok()?
        }
    };
    let is_binary = |char: char| char.is_ascii_control() && !"\t\n\r\x0c\x1b\x08".contains(char);
    (!text.chars().any(is_binary)).then_some(text)
}

/// The content type of a picture that browsers show. `None`: it is no such picture. A vector
/// picture is a document with scripts, so it is none.
pub(crate) fn picture(begin: &[u8]) -> Option<&'static str> {
    let is_webp = begin.starts_with(b"RIFF") && begin.get(8..12) == Some(b"WEBP");
    match begin {
        _ if begin.starts_with(b"\x89PNG\r\n\x1a\n") => Some("image/png"),
        _ if begin.starts_with(b"\xff\xd8\xff") => Some("image/jpeg"),
        _ if begin.starts_with(b"GIF87a") || begin.starts_with(b"GIF89a") => Some("image/gif"),
        _ if is_webp => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_is_what_its_bytes_are() {
        let text = |text: &str, size, cut| Look::Text { text: text.to_owned(), size, cut };
        assert_eq!(Look::at(b"a\tb\n\x1b[1m".to_vec(), 8), text("a\tb\n\x1b[1m", 8, false));
        assert_eq!(Look::at(Vec::new(), 0), text("", 0, false));
        assert_eq!(Look::at(b"\x89PNG\r\n\x1a\nx".to_vec(), 9), Look::Picture { size: 9 });
        assert_eq!(Look::at(b"\x7fELF\0".to_vec(), 5), Look::Binary { size: 5 });
        assert_eq!(Look::at(b"<svg onload=x>".to_vec(), 14), text("<svg onload=x>", 14, false));
        // A device says that it is empty.
        assert_eq!(Look::at(b"abc".to_vec(), 0), text("abc", 3, false));
    }

    #[test]
    fn a_character_at_the_cut_is_left_out() {
        let text = Look::Text { text: "a".to_owned(), size: 9, cut: true };
        assert_eq!(Look::at(b"a\xe2\x82".to_vec(), 9), text);
        assert_eq!(Look::at(b"a\xe2\x82".to_vec(), 3), Look::Binary { size: 3 });
        assert_eq!(Look::at(b"a\xff\x82".to_vec(), 9), Look::Binary { size: 9 });
    }

    proptest! {
        /// A picture is never something that a browser could run.
        #[test]
        fn pictures_have_the_type_of_a_picture(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Some(kind) = picture(&bytes) {
                prop_assert!(["image/png", "image/jpeg", "image/gif", "image/webp"].contains(&kind));
            }
        }
    }
}
