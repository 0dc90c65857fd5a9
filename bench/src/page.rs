//! Writes `docs/performance.md`: the data file as a page for people.
//!
//! Owns the order and the words: first the results for the goals, then the values of each subject,
//! the method, and the machine. The page says which figures are not reached. The text of a file
//! `notes/GROUP-ID.md` beside the data is added to its measure: what the profile shows, and what
//! was tried. Lines have at most [`COLUMNS`] columns, except table rows and links to images.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::data::{Data, Record};
use crate::facts::Facts;
use crate::judge::{Verdict, compared};
use crate::measure::{Better, Comparison, Goal, Group, Reference, Role};
use crate::plot;
use crate::statistics::Summary;

/// The directory of the data file, as the page links to it.
const DIRECTORY: &str = "performance";

/// The maximum width of a line.
const COLUMNS: usize = 100;

/// Writes the page beside the directory of the data file, and the plots into that directory.
pub(crate) fn render(data: &Data, file: &Path) -> anyhow::Result<()> {
    let directory = file.parent().context("a data file is in a directory")?;
    let page = directory.with_extension("md");
    let mut text = introduction(data);
    for group in [Group::Loopback, Group::Machine, Group::Queue] {
        let records: Vec<&Record> = data.records.iter().filter(|r| r.group == group).collect();
        if records.is_empty() {
            continue;
        }
        text.push_str(match group {
            Group::Loopback => "\n## Host and agent on one machine, over loopback\n",
            Group::Machine => "\n## In a virtual machine\n",
            Group::Queue => "\n## Jobs of a queue\n",
        });
        for record in records {
            let note =
                fs::read_to_string(directory.join(format!("notes/{group}-{}.md", record.id)));
            section(&mut text, record, note.ok().as_deref());
            for quantity in &record.quantities {
                if let Some(svg) = plot::draw(record, quantity) {
                    let name = plot_name(record, &quantity.name);
                    fs::write(directory.join(&name), svg)?;
                    let title = format!("{}: {}", record.title, quantity.name);
                    let _ = writeln!(text, "\n![{title}]({DIRECTORY}/{name})");
                }
            }
        }
    }
    text.push_str("\n## Machines\n");
    text.push_str(&machines(data));
    fs::write(&page, text).with_context(|| format!("cannot write {}", page.display()))
}

fn plot_name(record: &Record, quantity: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let quantity: String = quantity.chars().map(allowed).collect();
    format!("{}-{}-{quantity}.svg", record.group, record.id)
}

fn introduction(data: &Data) -> String {
    let mut text = "# Performance\n\n\
        `make bench` writes this page from [the data file](performance/data.json), which has every\n\
        sample.\n\n\
        - The subjects of a measure run in turn (A B A B), at least five times.\n\
        - A figure is the median. In the sections below, the minimum and the maximum follow in\n  \
          brackets.\n\
        - A ratio is the median of the ratios of the rounds, because the subjects of one round run\n  \
          directly after each other. Compare ratios rather than values: other work ran on the same\n  \
          machine.\n\n\
        | measure | what | ratio or value | to reach | reached |\n| --- | --- | --- | --- | --- |\n"
        .to_owned();
    for record in &data.records {
        for goal in &record.goals {
            let _ = writeln!(
                text,
                "| [{}/{}] | {} | {} | {} | {} |",
                record.group,
                record.id,
                what_of(goal),
                median(record, goal),
                target(record, goal),
                reached(record, goal),
            );
        }
    }
    text.push('\n');
    for record in data.records.iter().filter(|record| !record.goals.is_empty()) {
        let Record { group, id, title, .. } = record;
        let _ = writeln!(text, "[{group}/{id}]: #{}", anchor(title));
    }
    text
}

fn anchor(title: &str) -> String {
    let kept = |c: &char| c.is_ascii_alphanumeric() || *c == ' ' || *c == '-';
    title.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn what_of(goal: &Goal) -> String {
    what(&goal.quantity, &goal.subject, goal.reference.as_ref())
}

fn what(quantity: &str, subject: &str, reference: Option<&Reference>) -> String {
    match reference {
        None => format!("{quantity} of {subject}"),
        Some(reference) if reference.quantity == quantity => {
            format!("{quantity} of {subject} relative to {}", reference.subject)
        }
        Some(reference) => {
            let Reference { quantity: of, subject: to } = reference;
            format!("{quantity} of {subject} relative to {of} of {to}")
        }
    }
}

fn unit<'a>(record: &'a Record, quantity: &str) -> &'a str {
    record.quantity(quantity).map_or("", |quantity| quantity.unit.as_str())
}

fn ratio(record: &Record, goal: &Goal) -> String {
    let Some(verdict) = Verdict::of(record, goal) else { return "not measured".to_owned() };
    let figure = summary(verdict.ratio);
    match goal.reference {
        Some(_) => format!("**{figure}** ×"),
        None => with_unit(&format!("**{figure}**"), unit(record, &goal.quantity)),
    }
}

/// The median of the ratio or value of a goal.
fn median(record: &Record, goal: &Goal) -> String {
    let Some(verdict) = Verdict::of(record, goal) else { return "not measured".to_owned() };
    let figure = number(verdict.ratio.median);
    match goal.reference {
        Some(_) => format!("{figure} ×"),
        None => with_unit(&figure, unit(record, &goal.quantity)),
    }
}

fn with_unit(figure: &str, unit: &str) -> String {
    if unit.is_empty() { figure.to_owned() } else { format!("{figure} {unit}") }
}

fn target(record: &Record, goal: &Goal) -> String {
    let sign = match record.quantity(&goal.quantity).map(|quantity| quantity.better) {
        Some(Better::Less) => "≤",
        _ => "≥",
    };
    let unit = unit(record, &goal.quantity);
    let plus = match goal.plus {
        0.0 => String::new(),
        plus => format!(" + {} {unit}", number(plus)),
    };
    match goal.reference {
        Some(_) => format!("{sign} {} ×{plus}", number(goal.factor)),
        None => with_unit(&format!("{sign} {}", number(goal.factor + goal.plus)), unit),
    }
}

fn reached(record: &Record, goal: &Goal) -> &'static str {
    match Verdict::of(record, goal) {
        Some(verdict) if verdict.is_reached() => "yes",
        Some(_) => "**no**",
        None => "not measured",
    }
}

/// The result of each goal and of each comparison, in one line each.
pub(crate) fn lines(record: &Record) -> Vec<String> {
    let goals = record.goals.iter().map(|goal| sentence(record, goal));
    let comparisons = record.comparisons.iter().map(|comparison| relation(record, comparison));
    let line = |text: String| format!("{}/{} {}", record.group, record.id, text.replace("**", ""));
    goals.chain(comparisons).map(line).collect()
}

fn relation(record: &Record, comparison: &Comparison) -> String {
    let Comparison { subject, quantity, reference } = comparison;
    let what = what(quantity, subject, Some(reference));
    match compared(record, comparison) {
        Some(ratio) => format!("{what}: **{}** ×", summary(ratio)),
        None => format!("{what}: not measured"),
    }
}

fn sentence(record: &Record, goal: &Goal) -> String {
    let reached = match Verdict::of(record, goal) {
        Some(verdict) if verdict.is_reached() => "reached",
        Some(_) => "**not reached**",
        None => "not measured",
    };
    let (what, ratio, target) = (what_of(goal), ratio(record, goal), target(record, goal));
    format!("{what}: {ratio}, to reach {target}: {reached}")
}

fn section(text: &mut String, record: &Record, note: Option<&str>) {
    let _ = writeln!(text, "\n### {}\n\n{}\n", record.title, wrapped(&record.how, ""));
    for goal in &record.goals {
        let _ = writeln!(text, "- {}", wrapped(&sentence(record, goal), "  "));
    }
    for comparison in &record.comparisons {
        let _ = writeln!(text, "- {}", wrapped(&relation(record, comparison), "  "));
    }
    let _ = write!(text, "\n| subject | role |");
    for quantity in &record.quantities {
        match quantity.unit.as_str() {
            "" => drop(write!(text, " {} |", quantity.name)),
            unit => drop(write!(text, " {}, {unit} |", quantity.name)),
        }
    }
    let _ = writeln!(text, "\n| --- | --- |{}", " --- |".repeat(record.quantities.len()));
    for subject in &record.subjects {
        let role = match subject.role {
            Role::Metaservice => "metaservice",
            Role::Peer => "peer",
            Role::Limit => "limit",
        };
        let _ = write!(text, "| {} | {role} |", subject.name);
        for quantity in &record.quantities {
            let values = record.values(&subject.name, &quantity.name);
            let figure = Summary::of(values.into_iter().flatten());
            let _ = write!(text, " {} |", figure.map_or(String::new(), summary));
        }
        text.push('\n');
    }
    for subject in &record.subjects {
        if let Some(reason) = &subject.failed {
            let failure = format!("{} failed: {reason}", subject.name);
            let _ = writeln!(text, "\n{}", wrapped(&failure, ""));
        }
    }
    if record.quick {
        text.push_str("\nThese samples are from a quick run: fewer and smaller.\n");
    }
    if let Some(note) = note {
        let _ = writeln!(text, "\n{}", note.trim_end());
    }
}

fn machines(data: &Data) -> String {
    let mut seen: Vec<(&Facts, Vec<String>)> = Vec::new();
    for record in &data.records {
        let name = format!("{}/{}", record.group, record.id);
        match seen.iter_mut().find(|(facts, _)| **facts == record.on) {
            Some((_, names)) => names.push(name),
            None => seen.push((&record.on, vec![name])),
        }
    }
    let mut text = String::new();
    for (facts, names) in seen {
        let Facts { date, commit, processor, cores, memory, kernel, acceleration, rustc, programs } =
            facts;
        let machine = [
            format!("measures: {}", names.join(", ")),
            format!("processor: {processor}, {cores} cores"),
            format!("memory: {memory}"),
            format!("kernel: {kernel}"),
            format!("acceleration of virtual machines: {acceleration}"),
            format!("programs: {rustc}; {}", programs.join("; ")),
            format!("commit: {commit}, {date}"),
        ];
        text.push('\n');
        for line in machine {
            let _ = writeln!(text, "- {}", wrapped(&line, "  "));
        }
    }
    text
}

fn summary(summary: Summary) -> String {
    let Summary { median, least, most } = summary;
    format!("{} [{}..{}]", number(median), number(least), number(most))
}

/// Breaks a text into lines. The lines after the first begin with `indent`, which the first has
/// room for as well.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut width = indent.len();
    for word in text.split_whitespace() {
        let count = word.chars().count();
        if lines.is_empty() {
            width += count;
        } else if width + 1 + count > COLUMNS {
            lines.push('\n');
            lines.push_str(indent);
            width = indent.len() + count;
        } else {
            lines.push(' ');
            width += 1 + count;
        }
        lines.push_str(word);
    }
    lines
}

/// A number with three significant digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::record;

    #[test]
    fn a_page_is_made_from_the_data_and_says_what_is_not_reached() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("performance/data.json");
        let mut record = record(&[("metaservice", &[1.0, 2.0, 3.0]), ("limit", &[4.0, 4.0, 4.0])]);
        record.goals = vec![
            Goal::ratio("metaservice", "rate", 0.8, "limit"),
            Goal::absolute("metaservice", "rate", 1.5),
        ];
        record.comparisons = vec![
            Comparison::new("limit", "rate", "metaservice"),
            Comparison::new("metaservice", "rate", "peer"),
        ];
        let data = Data { records: vec![record] };
        data.save(&file).unwrap();
        fs::create_dir(directory.path().join("performance/notes")).unwrap();
        fs::write(directory.path().join("performance/notes/loopback-log.md"), "A copy.\n").unwrap();
        render(&Data::load(&file).unwrap(), &file).unwrap();
        let page = fs::read_to_string(directory.path().join("performance.md")).unwrap();
        let ratio = "- rate of metaservice relative to limit: **0.500 [0.250..0.750]** ×, \
                     to reach ≥ 0.800 ×: **not\n  reached**\n";
        assert!(page.contains(ratio), "{page}");
        let comparison = "- rate of limit relative to metaservice: **2.00 [1.33..4.00]** ×\n";
        assert!(page.contains(comparison), "{page}");
        let missing = "- rate of metaservice relative to peer: not measured\n";
        assert!(page.contains(missing), "{page}");
        let value =
            "rate of metaservice: **2.00 [1.00..3.00]** MB/s, to reach ≥ 1.50 MB/s: reached";
        assert!(page.contains(value), "{page}");
        let row = "| [loopback/log] | rate of metaservice | 2.00 MB/s | ≥ 1.50 MB/s | yes |";
        assert!(page.contains(row), "{page}");
        assert!(page.contains("\n[loopback/log]: #a-log\n"), "{page}");
        assert!(page.lines().all(|line| line.chars().count() <= COLUMNS), "{page}");
        assert!(page.contains("\nA copy.\n"));
        assert!(page.contains("(performance/loopback-log-rate.svg)"));
        assert!(directory.path().join("performance/loopback-log-rate.svg").is_file());
    }

    #[test]
    fn the_committed_page_is_made_from_the_committed_data() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join(DIRECTORY);
        fs::create_dir_all(copy.join("notes")).unwrap();
        for note in fs::read_dir(docs.join(DIRECTORY).join("notes")).unwrap() {
            let note = note.unwrap();
            fs::copy(note.path(), copy.join("notes").join(note.file_name())).unwrap();
        }
        let data = Data::load(&docs.join(DIRECTORY).join("data.json")).unwrap();
        render(&data, &copy.join("data.json")).unwrap();
        let rendered = fs::read_to_string(directory.path().join("performance.md")).unwrap();
        let committed = fs::read_to_string(docs.join("performance.md")).unwrap();
        assert!(
            rendered == committed,
            "docs/performance.md is old: run `metaservice-bench render`"
        );
        for plot in fs::read_dir(&copy).unwrap().map(|entry| entry.unwrap().file_name()) {
            let read = |directory: &Path| fs::read(directory.join(&plot)).ok();
            assert!(
                plot == "notes" || read(&copy) == read(&docs.join(DIRECTORY)),
                "{plot:?} is old"
            );
        }
    }

    #[test]
    fn text_is_broken_at_spaces() {
        // The first line has room for the indent: 19 words and their spaces are 94 columns.
        let (first, rest) = (["four"; 19].join(" "), ["four"; 11].join(" "));
        assert_eq!(wrapped(&"four ".repeat(30), "  "), format!("{first}\n  {rest}"));
        assert_eq!(wrapped("", "  "), "");
        let long = "x".repeat(COLUMNS + 1);
        assert_eq!(wrapped(&format!("a {long} b"), ""), format!("a\n{long}\nb"));
    }
}
