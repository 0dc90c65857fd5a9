//! Tables of text with aligned columns.

/// The lines of a table. All rows have as many cells as the first one, which has the headings.
pub(crate) fn lines(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
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
    }
}
