//! Removes questions to the terminal from the output of a command that cannot read the answers.
//!
//! A terminal answers some control sequences as if the user typed: where the cursor is, what kind
//! of terminal it is, which colours it has. If the command does not get what is typed, the answer
//! appears at the next prompt of the user. So this module removes these sequences, and nothing
//! else: ECMA-48 device reports, and those of xterm and kitty.

/// The longest control sequence that is kept, in bytes. A terminal ignores longer ones.
const MAX_SEQUENCE: usize = 256;

/// The longest string of an operating system command, in bytes. Longer ones are removed.
const MAX_STRING: usize = 4096;

const ESC: u8 = 0x1b;
const ENQ: u8 = 0x05;
const BEL: u8 = 0x07;
const CANCEL: [u8; 2] = [0x18, 0x1a];

/// What the terminal expects after the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// The first byte of a C1 control in UTF-8.
    Wide,
    Escape,
    /// A control sequence.
    Csi,
    /// An operating system command.
    Osc,
    /// The parameters of a device control string.
    Dcs,
    /// The first byte of an application command.
    Apc,
    /// The rest of a string that is shown.
    Shown,
    /// The rest of a string that is removed.
    Removed,
    /// ESC in a string of this kind: perhaps its end.
    EndOf(Kind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Osc,
    Shown,
    Removed,
}

/// A filter of one stream of bytes.
#[derive(Debug)]
pub(crate) struct QuestionFilter {
    state: State,
    /// The sequence so far, which is not shown yet.
    held: Vec<u8>,
}

impl Default for QuestionFilter {
    fn default() -> Self {
        Self { state: State::Text, held: Vec::new() }
    }
}

impl QuestionFilter {
    /// Appends the next bytes to `out`, without questions.
    pub(crate) fn filter(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            self.next(byte, out);
        }
    }

    fn next(&mut self, byte: u8, out: &mut Vec<u8>) {
        match self.state {
            State::Text => self.text(byte, out),
            State::Wide => self.wide(byte, out),
            State::Escape | State::Csi | State::Dcs | State::Apc if is_executed(byte) => {
                self.execute(byte, out);
            }
            State::Escape => self.escape(byte, out),
            State::Csi => self.csi(byte, out),
            State::Dcs => self.dcs(byte, out),
            State::Apc => self.apc(byte, out),
            State::Osc => self.string(Kind::Osc, byte, out),
            State::Shown => self.string(Kind::Shown, byte, out),
            State::Removed => self.string(Kind::Removed, byte, out),
            State::EndOf(kind) => {
                if byte == b'\\' {
                    self.end_string(kind, b"\x1b\\", out);
                } else {
                    // Another sequence begins here. What is open must not be open in the terminal.
                    if kind == Kind::Shown {
                        out.extend_from_slice(b"\x1b\\");
                    }
                    self.begin(State::Escape, &[ESC]);
                    self.next(byte, out);
                }
            }
        }
    }

    fn begin(&mut self, state: State, held: &[u8]) {
        self.state = state;
        self.held.clear();
        self.held.extend_from_slice(held);
    }

    fn text(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            ESC => self.begin(State::Escape, &[ESC]),
            0xc2 => self.begin(State::Wide, &[byte]),
            ENQ => {}
            _ => out.push(byte),
        }
    }

    fn wide(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            0x90 => self.begin(State::Dcs, &[0xc2, byte]),
            0x9a => self.begin(State::Text, &[]),
            0x9b => self.begin(State::Csi, &[0xc2, byte]),
            0x9d => self.begin(State::Osc, &[0xc2, byte]),
            0x9f => self.begin(State::Apc, &[0xc2, byte]),
            0x80..=0xbf => {
                out.extend_from_slice(&[0xc2, byte]);
                self.begin(State::Text, &[]);
            }
            _ => {
                // Not the beginning of a character. Without a replacement, it could become one with
                // what follows a removed sequence.
                out.extend_from_slice("\u{fffd}".as_bytes());
                self.begin(State::Text, &[]);
                self.text(byte, out);
            }
        }
    }

    /// A control character within a sequence acts as if it came before it.
    fn execute(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            ESC => self.begin(State::Escape, &[ESC]),
            _ if CANCEL.contains(&byte) => self.begin(State::Text, &[]),
            ENQ | 0x7f => {}
            _ => out.push(byte),
        }
    }

    fn escape(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.held.push(byte);
        let plain = self.held.len() == 2;
        match byte {
            b'[' if plain => self.state = State::Csi,
            b']' if plain => self.state = State::Osc,
            b'P' if plain => self.state = State::Dcs,
            b'_' if plain => self.state = State::Apc,
            b'X' | b'^' if plain => self.show_string(out),
            // DECID.
            b'Z' if plain => self.begin(State::Text, &[]),
            0x20..=0x2f if self.held.len() < MAX_SEQUENCE => {}
            _ => self.show(out),
        }
    }

    fn csi(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.held.push(byte);
        if self.held.len() > MAX_SEQUENCE {
            self.begin(State::Removed, &[]);
            self.state = if (0x40..=0x7e).contains(&byte) { State::Text } else { State::Csi };
        } else if (0x40..=0x7e).contains(&byte) {
            if is_question(&self.held[2..]) {
                self.begin(State::Text, &[]);
            } else {
                self.show(out);
            }
        }
    }

    fn dcs(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.held.push(byte);
        match byte {
            0x40..=0x7e => {
                // DECRQSS and XTGETTCAP: `$q`, `+q`.
                let asks = self.held[2..].iter().any(|byte| matches!(byte, b'$' | b'+'));
                if asks { self.begin(State::Removed, &[]) } else { self.show_string(out) }
            }
            _ if self.held.len() > MAX_SEQUENCE => self.begin(State::Removed, &[]),
            _ => {}
        }
    }

    /// Those of kitty for pictures are answered.
    fn apc(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.held.push(byte);
        if byte == b'G' { self.begin(State::Removed, &[]) } else { self.show_string(out) }
    }

    fn string(&mut self, kind: Kind, byte: u8, out: &mut Vec<u8>) {
        match byte {
            ESC => self.state = State::EndOf(kind),
            BEL if kind == Kind::Osc => self.end_string(kind, &[BEL], out),
            _ if CANCEL.contains(&byte) => {
                if kind == Kind::Shown {
                    out.push(byte);
                }
                self.begin(State::Text, &[]);
            }
            _ => match kind {
                Kind::Osc if self.held.len() < MAX_STRING => self.held.push(byte),
                Kind::Osc => self.begin(State::Removed, &[]),
                Kind::Shown => out.push(byte),
                Kind::Removed => {}
            },
        }
    }

    fn end_string(&mut self, kind: Kind, end: &[u8], out: &mut Vec<u8>) {
        match kind {
            Kind::Osc if asks(&self.held[2..]) => {}
            Kind::Osc => {
                out.append(&mut self.held);
                out.extend_from_slice(end);
            }
            Kind::Shown => out.extend_from_slice(end),
            Kind::Removed => {}
        }
        self.begin(State::Text, &[]);
    }

    fn show(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.state = State::Text;
    }

    fn show_string(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.state = State::Shown;
    }
}

const fn is_executed(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

/// Whether a terminal answers a control sequence: its parameters, intermediates and final byte.
fn is_question(sequence: &[u8]) -> bool {
    let Some((last, before)) = sequence.split_last() else { return false };
    let private = before.first().copied().filter(|byte| matches!(byte, b'<'..=b'?'));
    let intermediate = before.last().copied().filter(|byte| (0x20..0x30).contains(byte));
    match (last, private, intermediate) {
        (b'n', None | Some(b'?'), None) => true,
        (b'c', None | Some(b'>' | b'='), None) => true,
        (b'x', None, None) => true,
        (b'p', _, Some(b'$')) => true,
        (b'q', Some(b'>'), None) => true,
        (b'u' | b'm' | b'S', Some(b'?'), None) => true,
        (b'y', _, Some(b'*')) => true,
        (b'w', _, Some(b'$' | b'\'')) => true,
        (b'u', _, Some(b'&' | b'$')) => true,
        (b'v', _, Some(b'"')) => true,
        (b'|', _, Some(b'\'')) => true,
        (b't', None, None) => {
            let first = before.split(|byte| matches!(byte, b';' | b':')).next();
            let first = first.and_then(|digits| std::str::from_utf8(digits).ok());
            matches!(first.and_then(|digits| digits.parse().ok()), Some(11u16..=21))
        }
        _ => false,
    }
}

/// Whether a terminal answers an operating system command.
fn asks(string: &[u8]) -> bool {
    let mut fields = string.split(|byte| *byte == b';');
    let iterm = string.starts_with(b"1337;Re");
    iterm || fields.any(|field| field == b"?" || field.ends_with(b"=?"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut filter, mut out) = (QuestionFilter::default(), Vec::new());
        for piece in pieces {
            filter.filter(piece, &mut out);
        }
        out
    }

    #[test]
    fn questions_are_removed() {
        for question in [
            "\x1b[6n",
            "\x1b[?6n",
            "\x1b[c",
            "\x1b[0c",
            "\x1b[>c",
            "\x1b[=c",
            "\x1bZ",
            "\x05",
            "\x1b[x",
            "\x1b[?2026$p",
            "\x1b[14t",
            "\x1b[18;2t",
            "\x1b[>0q",
            "\x1b[?u",
            "\x1b]11;?\x07",
            "\x1b]4;1;?\x1b\\",
            "\x1b]52;c;?\x07",
            "\x1bP$qm\x1b\\",
            "\x1bP+q544e\x1b\\",
            "\x1b_Gi=1,a=q;AAAA\x1b\\",
            "\u{9b}6n",
            "\u{9d}10;?\x07",
            // A control character inside acts, and the sequence continues.
            "\x1b[\x056n",
        ] {
            let text = format!("a{question}b");
            assert_eq!(filter(&[text.as_bytes()]), b"ab", "{question:?}");
        }
        assert_eq!(filter(&[b"a\x1b[\n6nb"]), b"a\nb");
    }

    #[test]
    fn everything_else_is_shown() {
        for text in [
            "plain \u{e4}\u{20ac}\u{1f600}\r\n",
            "\x1b[31mred\x1b[0m\x1b[2J\x1b[H\x1b[?1049h\x1b[2;5r",
            "\x1b[>4;2m\x1b[?2c\x1b[8;24;80t\x1b[22;0t",
            "\x1b]0;title\x07\x1b]8;;https://a/?q=1\x1b\\link\x1b]8;;\x1b\\",
            "\x1bPq#0;2;0;0;0~~\x1b\\",
            "\x1b(B\x1b7\x1b8\x1b=\x1bc\x1b#8",
            "\x1b]11;#000000\x07",
        ] {
            assert_eq!(filter(&[text.as_bytes()]), text.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn what_is_removed_makes_no_question_of_what_is_left() {
        for (text, left) in [
            (&b"\x1b[\x1b[6n6n"[..], &b"6n"[..]),
            (b"\xc2\x05\x9b6n", b"\xef\xbf\xbd\x9b6n"),
            (b"\xc2\x1b[6n\x9b6n", b"\xef\xbf\xbd\x9b6n"),
            (b"\x1b\x1b[6n[6n", b"[6n"),
            (b"\x1bPq~\x1b[6n", b"\x1bPq~\x1b\\"),
        ] {
            assert_eq!(filter(&[text]), left, "{text:?}");
        }
        let long = [b"\x1b[".to_vec(), b"0;".repeat(500), b"6n".to_vec()].concat();
        assert_eq!(filter(&[&long]), b"");
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let alphabet = b"\x1b[]PZ_G\\?>$+;0156nctqpu\x05\x07\x18\n\xc2\x9b\x9d\x90a".to_vec();
        proptest::collection::vec(proptest::sample::select(alphabet), 0..60)
    }

    proptest! {
        /// Pieces do not matter, and what is left has no question.
        #[test]
        fn what_is_left_has_no_question(bytes in bytes(), at in any::<prop::sample::Index>()) {
            let whole = filter(&[&bytes]);
            let (first, second) = bytes.split_at(at.index(bytes.len() + 1));
            prop_assert_eq!(&filter(&[first, second]), &whole);
            prop_assert_eq!(filter(&[&whole]), whole);
        }
    }
}
