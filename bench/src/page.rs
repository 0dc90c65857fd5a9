//! `docs/performance.md`: the data file as a page for people.
//!
//! Owns the order and the words: the ratio first, then who had how much, then how and on what. A
//! figure that is not reached is said to be not reached. A file `notes/GROUP-ID.md` beside the data
//! is put under its measure: what the profile says, what was tried.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::data::{Data, Record};
use crate::facts::Facts;
use crate::judge::Verdict;
use crate::measure::{Better, Goal, Group, Role};
use crate::plot;
use crate::statistics::Summary;

/// The folder of the data file, as the page links to it.
const FOLDER: &str = "performance";

/// Writes the page beside the folder of `data`, and the plots into it.
pub(crate) fn render(data: &Data, file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().context("a data file is in a folder")?;
    let page = folder.with_extension("md");
    let mut text = introduction(data);
    for group in [Group::Loopback, Group::Machine] {
        let records: Vec<&Record> = data.records.iter().filter(|r| r.group == group).collect();
        if records.is_empty() {
            continue;
        }
        text.push_str(match group {
            Group::Loopback => "\n## Host and agent on one machine, over loopback\n",
            Group::Machine => "\n## In a virtual machine\n",
        });
        for record in records {
            let note = fs::read_to_string(folder.join(format!("notes/{group}-{}.md", record.id)));
            section(&mut text, record, note.ok().as_deref());
            for quantity in &record.quantities {
                if let Some(svg) = plot::draw(record, quantity) {
                    let name = plot_name(record, &quantity.name);
                    fs::write(folder.join(&name), svg)?;
                    let title = format!("{}: {}", record.title, quantity.name);
                    let _ = writeln!(text, "\n![{title}]({FOLDER}/{name})");
                }
            }
        }
    }
    text.push_str("\n## On what\n\n");
    text.push_str(&machines(data));
    fs::write(&page, text).with_context(|| format!("cannot write {}", page.display()))
}

fn plot_name(record: &Record, quantity: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let quantity: String = quantity.chars().map(word).collect();
    format!("{}-{}-{quantity}.svg", record.group, record.id)
}

fn introduction(data: &Data) -> String {
    let mut text = "# Performance\n\n\
        `make bench` has made this page from [performance/data.json](performance/data.json), which keeps every sample. Subjects of a measure were\n\
        asked in turn, A B A B, at least five times; a figure is the median with the least and the most in brackets. A ratio is the median of the\n\
        ratios of the rounds, as a round's subjects ran right after each other. Ratios count: other work ran on the same machine.\n\n\
        | measure | what | ratio or value | to reach | reached |\n| --- | --- | --- | --- | --- |\n"
        .to_owned();
    for record in &data.records {
        for goal in &record.goals {
            let _ = writeln!(
                text,
                "| [{}](#{}) | {} | {} | {} | {} |",
                record.title,
                anchor(&record.title),
                what(goal),
                ratio(record, goal),
                bound(record, goal),
                reached(record, goal),
            );
        }
    }
    text
}

fn anchor(title: &str) -> String {
    let kept = |c: &char| c.is_ascii_alphanumeric() || *c == ' ' || *c == '-';
    title.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn what(goal: &Goal) -> String {
    match &goal.reference {
        None => format!("{} of {}", goal.quantity, goal.subject),
        Some(reference) if reference.quantity == goal.quantity => {
            format!("{} of {} to {}", goal.quantity, goal.subject, reference.subject)
        }
        Some(reference) => format!(
            "{} of {} to {} of {}",
            goal.quantity, goal.subject, reference.quantity, reference.subject
        ),
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
        None => format!("**{figure}** {}", unit(record, &goal.quantity)),
    }
}

fn bound(record: &Record, goal: &Goal) -> String {
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
        None => format!("{sign} {} {unit}", number(goal.factor + goal.plus)),
    }
}

fn reached(record: &Record, goal: &Goal) -> &'static str {
    match Verdict::of(record, goal) {
        Some(verdict) if verdict.is_reached() => "yes",
        Some(_) => "**no**",
        None => "not measured",
    }
}

/// A goal and what became of it, in one line.
pub(crate) fn line(record: &Record, goal: &Goal) -> String {
    format!("{}/{} {}", record.group, record.id, sentence(record, goal).replace("**", ""))
}

fn sentence(record: &Record, goal: &Goal) -> String {
    let reached = match Verdict::of(record, goal) {
        Some(verdict) if verdict.is_reached() => "reached",
        Some(_) => "**not reached**",
        None => "not measured",
    };
    let (what, ratio, bound) = (what(goal), ratio(record, goal), bound(record, goal));
    format!("{what}: {ratio}, to reach {bound}: {reached}")
}

fn section(text: &mut String, record: &Record, note: Option<&str>) {
    let _ = writeln!(text, "\n### {}\n\n{}\n", record.title, record.how);
    for goal in &record.goals {
        let _ = writeln!(text, "- {}", sentence(record, goal));
    }
    let _ = write!(text, "\n| | |");
    for quantity in &record.quantities {
        let _ = write!(text, " {}, {} |", quantity.name, quantity.unit);
    }
    let _ = writeln!(text, "\n| --- | --- |{}", " --- |".repeat(record.quantities.len()));
    for subject in &record.subjects {
        let role = match subject.role {
            Role::Ours => "ours",
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
            let _ = writeln!(text, "\n{} failed: {reason}", subject.name);
        }
    }
    if record.quick {
        text.push_str("\nThese are the samples of a quick run: fewer and smaller.\n");
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
        let _ = writeln!(
            text,
            "- {}: {}, {} cores, {} of memory, {}; acceleration of virtual machines: {}; {}; {}; commit {}, {}",
            names.join(", "),
            facts.processor,
            facts.cores,
            facts.memory,
            facts.kernel,
            facts.acceleration,
            facts.rustc,
            facts.programs.join("; "),
            facts.commit,
            facts.date,
        );
    }
    text
}

fn summary(summary: Summary) -> String {
    let Summary { median, least, most } = summary;
    format!("{} [{}..{}]", number(median), number(least), number(most))
}

/// Three digits that count.
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
    fn a_page_says_what_is_not_reached_and_comes_from_the_data_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("performance/data.json");
        let mut record = record(&[("ours", &[1.0, 2.0, 3.0]), ("limit", &[4.0, 4.0, 4.0])]);
        record.goals =
            vec![Goal::ratio("ours", "rate", 0.8, "limit"), Goal::absolute("ours", "rate", 1.5)];
        let data = Data { records: vec![record] };
        data.save(&file).unwrap();
        fs::create_dir(folder.path().join("performance/notes")).unwrap();
        fs::write(folder.path().join("performance/notes/loopback-log.md"), "A copy.\n").unwrap();
        render(&Data::load(&file).unwrap(), &file).unwrap();
        let page = fs::read_to_string(folder.path().join("performance.md")).unwrap();
        let line = "rate of ours to limit: **0.500 [0.250..0.750]** ×, to reach ≥ 0.800 ×: **not reached**";
        assert!(page.contains(line), "{page}");
        assert!(
            page.contains(
                "rate of ours: **2.00 [1.00..3.00]** MB/s, to reach ≥ 1.50 MB/s: reached"
            )
        );
        assert!(page.contains("\nA copy.\n"));
        assert!(page.contains("(performance/loopback-log-rate.svg)"));
        assert!(folder.path().join("performance/loopback-log-rate.svg").is_file());
    }
}
