//! Draws a record as an SVG plot: a bar for the median of each subject, a line from minimum to
//! maximum, and a dot for each sample.

use std::fmt::Write;

use crate::data::Record;
use crate::measure::{Better, Quantity, Role};
use crate::page::number;
use crate::statistics::Summary;

const WIDTH: f64 = 760.0;
const NAMES: f64 = 220.0;
const FIGURES: f64 = 100.0;
const ROW: f64 = 30.0;
const HEAD: f64 = 34.0;

/// Draws the plot of one quantity. Returns `None` if no subject has a value.
pub(crate) fn draw(record: &Record, quantity: &Quantity) -> Option<String> {
    let rows: Vec<(&str, Role, Vec<f64>, Summary)> = record
        .subjects
        .iter()
        .filter_map(|subject| {
            let values = record.values(&subject.name, &quantity.name);
            let values: Vec<f64> = values.into_iter().flatten().collect();
            let summary = Summary::of(values.iter().copied())?;
            Some((subject.name.as_str(), subject.role, values, summary))
        })
        .collect();
    let most = rows.iter().map(|row| row.3.most).reduce(f64::max)?;
    let scale = (WIDTH - NAMES - FIGURES) / if most > 0.0 { most } else { 1.0 };
    let height = HEAD + ROW * rows.len() as f64 + 8.0;
    let better = match quantity.better {
        Better::More => "more is better",
        Better::Less => "less is better",
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"8\" y=\"20\" font-weight=\"bold\">{}: {} in {} ({better})</text>\n",
        escaped(&record.title),
        escaped(&quantity.name),
        escaped(&quantity.unit),
    );
    for (number, (name, role, values, summary)) in rows.iter().enumerate() {
        let top = HEAD + ROW * number as f64;
        row(&mut svg, top, (name, *role), values, *summary, scale);
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn row(
    svg: &mut String,
    top: f64,
    (name, role): (&str, Role),
    values: &[f64],
    summary: Summary,
    scale: f64,
) {
    let (middle, at) = (top + ROW / 2.0, |value: f64| NAMES + value * scale);
    let colour = match role {
        Role::Metaservice => "#2b6cb0",
        Role::Peer => "#a0aec0",
        Role::Limit => "#d6bc7a",
    };
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
         <rect x=\"{NAMES:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
         <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#1a202c\"/>",
        NAMES - 8.0,
        middle + 4.0,
        escaped(name),
        top + 4.0,
        (summary.median * scale).max(0.5),
        ROW - 8.0,
        at(summary.least),
        at(summary.most),
    );
    for value in values {
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"2.5\" fill=\"#1a202c\"/>",
            at(*value)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        at(summary.most) + 8.0,
        middle + 4.0,
        number(summary.median)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::record;

    #[test]
    fn a_plot_has_a_bar_for_each_subject_and_a_dot_for_each_sample() {
        let mut record = record(&[("metaservice", &[1.0, 2.0, 3.0]), ("limit", &[4.0, 4.0, 4.0])]);
        record.title = "a < b".to_owned();
        let svg = draw(&record, &record.quantities[0]).unwrap();
        assert_eq!(svg.matches("<circle").count(), 6);
        assert_eq!(svg.matches("<line").count(), 2);
        assert!(svg.contains("a &lt; b: rate in MB/s (more is better)"), "{svg}");
        record.subjects.clear();
        assert_eq!(draw(&record, &record.quantities[0]), None);
    }
}
