//! A line of a log as a terminal shows it: text in spans, without any control character. It does no
//! I/O.
//!
//! A carriage return, a backspace and the sequences of progress bars move within the line. Colours
//! become styles. Everything else that a terminal would obey has no effect: titles, links, the
//! clipboard, images.

use metaservice::LogOutput;
use serde::Serialize;
use vte::{Params, Perform};

use super::feed::Feed;
use super::style::{Color, Style};

/// The most characters of a line that are shown.
pub(crate) const MAX_CELLS: usize = 8 * 1024;

/// The most bytes of a line that are looked at.
pub(crate) const MAX_LINE: usize = 1024 * 1024;

/// The width of a tabulator.
const TAB: usize = 8;

/// Text of one style, for the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Span {
    /// The text.
    #[serde(rename = "t")]
    pub(crate) text: String,
    /// Whether the command wrote it to stderr.
    #[serde(rename = "e", skip_serializing_if = "is_false")]
    pub(crate) stderr: bool,
    /// Names of the style: attributes, `f0` to `f15` for the text, `b0` to `b15` behind it.
    #[serde(rename = "s", skip_serializing_if = "String::is_empty")]
    pub(crate) style: String,
    /// Another colour of the text, as `#rrggbb`.
    #[serde(rename = "f", skip_serializing_if = "Option::is_none")]
    pub(crate) text_color: Option<String>,
    /// Another colour behind it.
    #[serde(rename = "b", skip_serializing_if = "Option::is_none")]
    pub(crate) color_behind: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pen {
    output: LogOutput,
    style: Style,
}

/// Makes a row of the bytes of a line.
pub(crate) struct Row {
    feed: Feed,
    screen: Screen,
    bytes: usize,
}

struct Screen {
    cells: Vec<(char, Pen)>,
    column: usize,
    pen: Pen,
    cut: bool,
}

impl Row {
    /// An empty line that begins in this style.
    pub(crate) fn new(style: Style) -> Self {
        let pen = Pen { output: LogOutput::Stdout, style };
        let screen = Screen { cells: Vec::new(), column: 0, pen, cut: false };
        Self { feed: Feed::new(), screen, bytes: 0 }
    }

    /// Adds bytes of the line, without its line break.
    pub(crate) fn push(&mut self, output: LogOutput, bytes: &[u8]) {
        let room = MAX_LINE - self.bytes;
        let taken = &bytes[..bytes.len().min(room)];
        self.screen.cut |= taken.len() < bytes.len();
        self.bytes += taken.len();
        self.screen.pen.output = output;
        self.feed.advance(&mut self.screen, taken);
    }

    /// The style at the end of the line.
    pub(crate) const fn style(&self) -> Style {
        self.screen.pen.style
    }

    /// Whether a part of the line is not shown.
    pub(crate) const fn is_cut(&self) -> bool {
        self.screen.cut
    }

    /// The text of the line.
    pub(crate) fn text(&self) -> String {
        self.screen.cells.iter().map(|(char, _)| char).collect()
    }

    /// The line in pieces of one style.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let same = self.screen.cells.chunk_by(|(_, a), (_, b)| a == b);
        same.map(|cells| span(cells[0].1, cells.iter().map(|(char, _)| char).collect())).collect()
    }
}

fn span(pen: Pen, text: String) -> Span {
    let Pen { output, style } = pen;
    let mut names: Vec<String> = style.attributes().map(str::to_owned).collect();
    let mut color = |color, kind: char| match color {
        Color::Usual => None,
        Color::Named(number) => {
            names.push(format!("{kind}{number}"));
            None
        }
        Color::Rgb([r, g, b]) => Some(format!("#{r:02x}{g:02x}{b:02x}")),
    };
    let (text_color, color_behind) = (color(style.text, 'f'), color(style.behind, 'b'));
    let stderr = output == LogOutput::Stderr;
    Span { text, stderr, style: names.join(" "), text_color, color_behind }
}

/// A character that shows itself and changes nothing around it. Control characters are not for it.
const fn harmless(char: char) -> char {
    match char {
        // These change the order or the direction of text, or begin a line.
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}' => {
            char::REPLACEMENT_CHARACTER
        }
        char => char,
    }
}

impl Screen {
    fn put(&mut self, char: char) {
        if self.column >= MAX_CELLS {
            self.cut = true;
            return;
        }
        while self.cells.len() < self.column {
            self.cells.push((' ', self.pen));
        }
        let cell = (char, self.pen);
        match self.cells.get_mut(self.column) {
            Some(place) => *place = cell,
            None => self.cells.push(cell),
        }
        self.column += 1;
    }

    fn erase(&mut self, mode: u16) {
        let column = self.column.min(self.cells.len());
        match mode {
            0 => self.cells.truncate(column),
            1 => self.cells[..column].fill((' ', self.pen)),
            2 => self.cells.clear(),
            _ => {}
        }
    }
}

impl Perform for Screen {
    fn print(&mut self, char: char) {
        // The parser gives some of them to `execute`, depending on where bytes are cut.
        if !char.is_control() {
            self.put(harmless(char));
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\r' => self.column = 0,
            0x08 => self.column = self.column.saturating_sub(1),
            b'\t' => {
                let next = (self.column / TAB + 1) * TAB;
                while self.column < next.min(MAX_CELLS) {
                    match self.cells.get(self.column) {
                        Some(_) => self.column += 1,
                        None => self.put(' '),
                    }
                }
            }
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, between: &[u8], ignore: bool, action: char) {
        if ignore || !between.is_empty() {
            return;
        }
        let first = params.iter().next().and_then(|param| param.first().copied()).unwrap_or(0);
        let count = usize::from(first.max(1));
        match action {
            'm' => self.pen.style.apply(params),
            'K' => self.erase(first),
            'G' => self.column = (count - 1).min(MAX_CELLS),
            'C' => self.column = (self.column + count).min(MAX_CELLS),
            'D' => self.column = self.column.saturating_sub(count),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
