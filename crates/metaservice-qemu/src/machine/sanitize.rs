//! Text from a machine, made fit for a terminal.
//!
//! The guest is hostile, and a terminal obeys what it receives. So control characters, escape
//! sequences and text that changes its direction are removed.

/// The longest line, in characters. The rest of a line is left out.
const MAX_LINE: usize = 1024;

/// Splits text of a machine into sanitized lines.
pub(crate) fn clean_lines(bytes: &[u8]) -> Vec<String> {
    bytes.split(|byte| *byte == b'\n').map(clean_line).filter(|line| !line.is_empty()).collect()
}

fn clean_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::new();
    let mut left = MAX_LINE;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if left == 0 {
            break;
        }
        match character {
            '\x1b' => skip_escape(&mut characters),
            '\t' => shown.push(' '),
            _ if character.is_control() || is_invisible(character) => continue,
            _ => shown.push(character),
        }
        left -= 1;
    }
    shown.truncate(shown.trim_end().len());
    shown
}

/// Skips the rest of an escape sequence: to the final letter of a control sequence (`ESC [ ...`),
/// to the end of a string (`ESC ] ...`), or one character.
fn skip_escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => {
            while characters.next_if(|c| ('\x20'..='\x3f').contains(c)).is_some() {}
            characters.next_if(|c| ('\x40'..='\x7e').contains(c));
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            // It ends with BEL or with ESC \.
            while let Some(character) = characters.next_if(|c| *c != '\x1b') {
                if character == '\x07' {
                    return;
                }
            }
        }
        Some('\x20'..='\x2f') => {
            characters.next();
        }
        _ => {}
    }
}

/// Characters that show nothing, and change the order or the look of others.
const fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_as_a_person_reads_them() {
        let bytes =
            b"one\r\n\r\n\x1b[31mred\x1b[0m\ttext  \n\x1b]0;title\x07plain\nca\x08f\xff\n\x1b(Bset";
        assert_eq!(clean_lines(bytes), ["one", "red text", "plain", "caf\u{fffd}", "set"]);
    }

    #[test]
    fn sequences_that_do_not_end_swallow_no_more_than_their_line() {
        assert_eq!(clean_lines(b"a\x1b[\nb\x1b]title\nc\x1b\nd"), ["a", "b", "c", "d"]);
        assert_eq!(clean_lines("x\u{202e}y\u{200b}z".as_bytes()), ["xyz"]);
    }

    #[test]
    fn a_long_line_is_cut() {
        let line = &clean_lines(&[b'a'; 5000])[0];
        assert_eq!(line.len(), MAX_LINE);
    }

    proptest! {
        #[test]
        fn nothing_that_a_terminal_obeys_gets_through(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for line in clean_lines(&bytes) {
                prop_assert!(line.chars().all(|c| !c.is_control() && !is_invisible(c)), "{line:?}");
            }
        }

        #[test]
        fn escapes_in_any_mixture(text in "[a\x1b\\[\\];0-9m\x07\n\u{9b}\u{202e}]{0,60}") {
            for line in clean_lines(text.as_bytes()) {
                prop_assert!(line.chars().all(|c| !c.is_control() && !is_invisible(c)), "{line:?}");
            }
        }
    }
}
