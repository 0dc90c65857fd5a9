//! Tables of text with aligned columns.

/// The columns of a table: each is as wide as the longest cell that was there first.
pub(crate) struct Columns(Vec<usize>);

impl Columns {
    /// The columns of these rows. All rows have as many cells as the first one.
    pub(crate) fn of(rows: &[Vec<String>]) -> Self {
        let columns = rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        Self((0..columns).map(width).collect())
    }

    /// These columns, where the first ones have at least these widths.
    pub(crate) fn at_least(mut self, widths: &[usize]) -> Self {
        self.0.iter_mut().zip(widths).for_each(|(width, least)| *width = (*width).max(*least));
        self
    }

    /// A row as a line. A longer cell moves those after it.
    pub(crate) fn line(&self, row: &[String]) -> String {
        let cells = row.iter().zip(&self.0).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

/// The lines of a table. All rows have as many cells as the first one, which has the headings.
pub(crate) fn lines(rows: &[Vec<String>]) -> Vec<String> {
    let columns = Columns::of(rows);
    rows.iter().map(|row| columns.line(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows =
            [row(["NAME", "N", "COMMAND"]), row(["\u{e4}bcdef", "10", "x"]), row(["a", "", ""])];
        assert_eq!(lines(&rows), ["NAME    N   COMMAND", "\u{e4}bcdef  10  x", "a"]);
        assert_eq!(lines(&[]), [""; 0]);
        assert_eq!(Columns::of(&rows).line(&row(["longer than", "2", "y"])), "longer than  2   y");
        assert_eq!(Columns::of(&rows).at_least(&[1, 4]).line(&rows[2]), "a");
        assert_eq!(Columns::of(&rows).at_least(&[1, 4]).line(&rows[1]), "\u{e4}bcdef  10    x");
    }
}
