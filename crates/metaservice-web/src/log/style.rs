//! The colours and attributes of text, as the control sequence `ESC [ … m` sets them. It does no
//! I/O.

use vte::Params;

/// A colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Color {
    /// That of text without colour.
    #[default]
    Usual,
    /// One of the 16 of a terminal, which the page chooses.
    Named(u8),
    /// Red, green and blue.
    Rgb([u8; 3]),
}

/// How text looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Style {
    /// The colour of the text.
    pub(crate) text: Color,
    /// The colour behind it.
    pub(crate) behind: Color,
    attributes: u8,
}

/// The attributes: the number that sets one, its bit, and its name for the page.
const ATTRIBUTES: [(u16, u8, &str); 6] = [
    (1, 1, "bold"),
    (2, 2, "dim"),
    (3, 4, "italic"),
    (4, 8, "under"),
    (7, 16, "swap"),
    (9, 32, "strike"),
];

impl Style {
    /// The names of the attributes that are set.
    pub(crate) fn attributes(self) -> impl Iterator<Item = &'static str> {
        ATTRIBUTES
            .into_iter()
            .filter(move |(_, bit, _)| self.attributes & bit != 0)
            .map(|(_, _, name)| name)
    }

    /// Applies the parameters of `ESC [ … m`. What is not known changes nothing.
    pub(crate) fn apply(&mut self, params: &Params) {
        let mut params = params.iter();
        while let Some(param) = params.next() {
            match *param {
                [38] => self.text = extended(params.by_ref()).unwrap_or(self.text),
                [48] => self.behind = extended(params.by_ref()).unwrap_or(self.behind),
                [38, ref rest @ ..] => self.text = colons(rest).unwrap_or(self.text),
                [48, ref rest @ ..] => self.behind = colons(rest).unwrap_or(self.behind),
                // Underlines of other shapes; 0 is none.
                [4, 0] => self.attributes &= !8,
                [number, ..] => self.simple(number),
                [] => {}
            }
        }
    }

    fn simple(&mut self, number: u16) {
        let named = |from: u16| Color::Named(u8::try_from(number - from).unwrap_or(0));
        if let Some((_, bit, _)) = ATTRIBUTES.into_iter().find(|(set, ..)| *set == number) {
            self.attributes |= bit;
            return;
        }
        match number {
            0 => *self = Self::default(),
            22 => self.attributes &= !(1 | 2),
            23 => self.attributes &= !4,
            24 => self.attributes &= !8,
            27 => self.attributes &= !16,
            29 => self.attributes &= !32,
            30..=37 => self.text = named(30),
            39 => self.text = Color::Usual,
            40..=47 => self.behind = named(40),
            49 => self.behind = Color::Usual,
            90..=97 => self.text = named(90 - 8),
            100..=107 => self.behind = named(100 - 8),
            _ => {}
        }
    }
}

/// A colour as `5;N` or `2;R;G;B`.
fn extended<'a>(mut params: impl Iterator<Item = &'a [u16]>) -> Option<Color> {
    let mut next = || params.next().and_then(|param| param.first().copied());
    match next()? {
        5 => indexed(next()?),
        2 => rgb(&[next()?, next()?, next()?]),
        _ => None,
    }
}

/// A colour as `5:N`, `2:R:G:B` or `2::R:G:B`.
fn colons(rest: &[u16]) -> Option<Color> {
    match *rest {
        [5, number] => indexed(number),
        [2, r, g, b] | [2, _, r, g, b, ..] => rgb(&[r, g, b]),
        _ => None,
    }
}

fn rgb(parts: &[u16; 3]) -> Option<Color> {
    let [r, g, b] = parts.map(|part| u8::try_from(part).ok());
    Some(Color::Rgb([r?, g?, b?]))
}

/// One of the 256 colours of xterm: 16 names, a cube of 6 x 6 x 6, and 24 greys.
fn indexed(number: u16) -> Option<Color> {
    let number = u8::try_from(number).ok()?;
    Some(match number {
        0..=15 => Color::Named(number),
        16..=231 => {
            let level = |n: u8| if n == 0 { 0 } else { 55 + n * 40 };
            let cube = number - 16;
            Color::Rgb([level(cube / 36), level(cube / 6 % 6), level(cube % 6)])
        }
        232..=255 => Color::Rgb([8 + (number - 232) * 10; 3]),
    })
}

/// Finds the style at the end of text, and drops the text.
#[derive(Debug, Default)]
pub(crate) struct StyleOnly(pub(crate) Style);

impl vte::Perform for StyleOnly {
    fn csi_dispatch(&mut self, params: &Params, between: &[u8], ignore: bool, action: char) {
        if action == 'm' && between.is_empty() && !ignore {
            self.0.apply(params);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(text: &str) -> Style {
        let mut found = StyleOnly::default();
        vte::Parser::new().advance(&mut found, text.as_bytes());
        found.0
    }

    #[test]
    fn colours_of_all_forms_are_known() {
        for (text, color) in [
            ("\x1b[31m", Color::Named(1)),
            ("\x1b[97m", Color::Named(15)),
            ("\x1b[38;5;9m", Color::Named(9)),
            ("\x1b[38;5;16m", Color::Rgb([0, 0, 0])),
            ("\x1b[38;5;231m", Color::Rgb([255, 255, 255])),
            ("\x1b[38:5:232m", Color::Rgb([8, 8, 8])),
            ("\x1b[38;5;255m", Color::Rgb([238, 238, 238])),
            ("\x1b[38;2;1;2;3m", Color::Rgb([1, 2, 3])),
            ("\x1b[38:2::1:2:3m", Color::Rgb([1, 2, 3])),
            ("\x1b[38:2:1:2:3m", Color::Rgb([1, 2, 3])),
            ("\x1b[31m\x1b[39m", Color::Usual),
            ("\x1b[31m\x1b[m", Color::Usual),
            ("\x1b[31m\x1b[38;2;1;2;999m", Color::Named(1)),
            ("\x1b[31m\x1b[38;7m", Color::Named(1)),
            ("\x1b[?31m", Color::Usual),
        ] {
            assert_eq!(style(text).text, color, "{text:?}");
        }
        assert_eq!(style("\x1b[1;48;5;196;4m").behind, Color::Rgb([255, 0, 0]));
    }

    #[test]
    fn attributes_are_set_and_reset() {
        let names = |text| style(text).attributes().collect::<Vec<_>>();
        assert_eq!(
            names("\x1b[1;2;3;4;7;9m"),
            ["bold", "dim", "italic", "under", "swap", "strike"]
        );
        assert_eq!(names("\x1b[1;3;4m\x1b[22m\x1b[4:0m"), ["italic"]);
        assert_eq!(names("\x1b[1;38;5;4;4m"), ["bold", "under"]);
        assert_eq!(names("\x1b[1m\x1b[0m"), [""; 0]);
    }
}
