//! A table that is printed again and again: on a terminal, in the same place.

use std::io::{self, IsTerminal, Write};

use crate::terminal;

/// Where the table is.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: bool,
    /// The lines that were printed last. `None`: nothing was printed.
    shown: Option<usize>,
}

impl Screen {
    pub(super) fn of_stdout() -> Self {
        Self { terminal: io::stdout().is_terminal(), shown: None }
    }

    /// Prints the table. The first line has the headings.
    pub(super) fn show(&mut self, lines: &[String], to: &mut impl Write) -> io::Result<()> {
        let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let size = terminal::size().filter(|_| self.terminal);
        if let Some(size) = size {
            // The cursor does not move above the screen, and a long line would take two.
            lines.truncate(usize::from(size.rows.saturating_sub(1)).max(1));
            for line in &mut lines {
                let end = line.char_indices().nth(usize::from(size.columns.max(1)));
                *line = end.map_or(*line, |(end, _)| &line[..end]);
            }
        }
        match self.shown {
            // To the first line of the last table, and clear everything below.
            Some(shown) if self.terminal => write!(to, "\x1b[{shown}A\x1b[J")?,
            // Elsewhere the headings are printed once.
            Some(_) => drop(lines.drain(..lines.len().min(1))),
            None => {}
        }
        self.shown = Some(lines.len());
        for line in lines {
            writeln!(to, "{line}")?;
        }
        to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_one_table_and_a_file_has_all_rows() {
        let table = |rows: &[&str]| rows.iter().map(ToString::to_string).collect::<Vec<_>>();
        let shown = |terminal| {
            let mut screen = Screen { terminal, shown: None };
            let mut to = Vec::new();
            screen.show(&table(&["HEAD", "a", "b"]), &mut to).unwrap();
            screen.show(&table(&["HEAD", "c"]), &mut to).unwrap();
            String::from_utf8(to).unwrap()
        };
        assert_eq!(shown(true), "HEAD\na\nb\n\x1b[3A\x1b[JHEAD\nc\n");
        assert_eq!(shown(false), "HEAD\na\nb\nc\n");
    }
}
