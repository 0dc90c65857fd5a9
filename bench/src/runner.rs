//! Runs measures: prepares each, samples its subjects in turn, and keeps every sample.
//!
//! The order is A B A B, so that varying load affects all subjects. A subject that fails is
//! recorded as failed, and the samples of the others are kept. A subject that fails twice is not
//! sampled again, because each attempt can take its full timeout.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context;

use crate::data::{Record, Samples};
use crate::facts::Facts;
use crate::measure::{Entry, Measure, Setting};

/// Rounds of a quick run.
const QUICK_ROUNDS: usize = 3;

/// After this number of failures, a subject is not sampled again.
const FAILURES: usize = 2;

/// Takes all samples of one measure.
pub(crate) fn run(entry: &Entry, setting: &Setting, facts: &Facts) -> anyhow::Result<Record> {
    let begun = Instant::now();
    eprintln!("{}/{}: preparing", entry.group, entry.id);
    let mut measure = (entry.prepare)(setting)
        .with_context(|| format!("{}/{} cannot be prepared", entry.group, entry.id))?;
    let rounds = setting.pick(QUICK_ROUNDS, measure.rounds.max(5));
    let mut subjects: Vec<Samples> = measure
        .subjects
        .iter()
        .map(|subject| Samples {
            name: subject.name.to_owned(),
            role: subject.role,
            rounds: Vec::new(),
            failed: None,
        })
        .collect();
    for round in 1..=rounds {
        for (subject, samples) in measure.subjects.iter_mut().zip(&mut subjects) {
            let what = format!("{}/{} {round}/{rounds} {}", entry.group, entry.id, subject.name);
            if samples.rounds.iter().filter(|values| values.is_empty()).count() >= FAILURES {
                samples.rounds.push(BTreeMap::new());
                continue;
            }
            match (subject.sample)() {
                Ok(values) => {
                    eprintln!("{what}: {}", describe(&measure.quantities, &values));
                    let values = values.into_iter().map(|(name, value)| (name.to_owned(), value));
                    samples.rounds.push(values.collect());
                }
                Err(error) => {
                    eprintln!("{what}: failed: {error:#}");
                    samples.rounds.push(BTreeMap::new());
                    samples.failed = Some(format!("{error:#}"));
                }
            }
        }
    }
    eprintln!("{}/{}: {:.1} s", entry.group, entry.id, begun.elapsed().as_secs_f64());
    let Measure { title, how, quantities, goals, comparisons, .. } = measure;
    Ok(Record {
        group: entry.group,
        id: entry.id.to_owned(),
        title: title.to_owned(),
        how,
        on: facts.clone(),
        quick: setting.quick,
        quantities,
        goals,
        comparisons,
        subjects,
    })
}

fn describe(quantities: &[crate::measure::Quantity], values: &[(&'static str, f64)]) -> String {
    let unit = |name: &str| {
        quantities.iter().find(|quantity| quantity.name == name).map_or("", |q| q.unit.as_str())
    };
    let describe = |(name, value): &(&str, f64)| {
        format!("{name} {} {}", crate::page::number(*value), unit(name))
    };
    values.iter().map(describe).collect::<Vec<_>>().join(", ")
}
