//! The data file: every sample of every measure, and on what it was taken.
//!
//! Owns its form, reading, writing and merging. What a page or a plot shows comes from here and
//! from nowhere else.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::measure::{Goal, Group, Quantity, Role};

/// All measures, ordered by group and then as they are registered.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Data {
    pub(crate) records: Vec<Record>,
}

/// A measure and its samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) group: Group,
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) how: String,
    pub(crate) on: Facts,
    pub(crate) quick: bool,
    pub(crate) quantities: Vec<Quantity>,
    pub(crate) goals: Vec<Goal>,
    pub(crate) subjects: Vec<Samples>,
}

/// One subject's samples, in the order of the rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Samples {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Per round, each quantity by its name; empty where the sample failed.
    pub(crate) rounds: Vec<BTreeMap<String, f64>>,
    /// Why a sample failed: the last reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<String>,
}

impl Data {
    /// What is in a file; nothing, where there is none.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is not a data file of this version", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes all of it, or leaves the file as it was.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let folder = path.parent().context("a data file is in a folder")?;
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.persist(path)?;
        Ok(())
    }

    /// Takes the place of an earlier record of the same measure.
    pub(crate) fn put(&mut self, record: Record) {
        match self.records.iter_mut().find(|old| old.group == record.group && old.id == record.id) {
            Some(old) => *old = record,
            None => self.records.push(record),
        }
    }

    /// Orders the records as the measures are; those that are no longer any go.
    pub(crate) fn arrange(&mut self, order: &[(Group, &str)]) {
        let place = |record: &Record| {
            order.iter().position(|(group, id)| *group == record.group && *id == record.id)
        };
        self.records.retain(|record| place(record).is_some());
        self.records.sort_by_key(place);
    }

    pub(crate) fn find(&self, group: Group, id: &str) -> Option<&Record> {
        self.records.iter().find(|record| record.group == group && record.id == id)
    }
}

impl Record {
    pub(crate) fn quantity(&self, name: &str) -> Option<&Quantity> {
        self.quantities.iter().find(|quantity| quantity.name == name)
    }

    /// A subject's values of a quantity, round by round.
    pub(crate) fn values(&self, subject: &str, quantity: &str) -> Vec<Option<f64>> {
        let samples = self.subjects.iter().find(|samples| samples.name == subject);
        let rounds = samples.map_or(&[][..], |samples| &samples.rounds);
        rounds.iter().map(|round| round.get(quantity).copied()).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::measure::Better;

    /// A record with one quantity, `rate`, of which more is better.
    pub(crate) fn record(subjects: &[(&str, &[f64])]) -> Record {
        let samples = |(name, values): &(&str, &[f64])| Samples {
            name: (*name).to_owned(),
            role: if *name == "ours" { Role::Ours } else { Role::Limit },
            rounds: values
                .iter()
                .map(|&rate| BTreeMap::from([("rate".to_owned(), rate)]))
                .collect(),
            failed: None,
        };
        Record {
            group: Group::Loopback,
            id: "log".to_owned(),
            title: "A log".to_owned(),
            how: "As it is.".to_owned(),
            on: Facts::default(),
            quick: false,
            quantities: vec![Quantity {
                name: "rate".to_owned(),
                unit: "MB/s".to_owned(),
                better: Better::More,
            }],
            goals: Vec::new(),
            subjects: subjects.iter().map(samples).collect(),
        }
    }

    #[test]
    fn a_record_takes_the_place_of_its_measure_and_is_kept_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/data.json");
        let mut data = Data::load(&path).unwrap();
        assert!(data.records.is_empty());
        data.put(record(&[("ours", &[1.0])]));
        data.put(record(&[("ours", &[2.0])]));
        let mut other = record(&[("ours", &[3.0])]);
        other.id = "gone".to_owned();
        data.put(other);
        data.arrange(&[(Group::Loopback, "log")]);
        data.save(&path).unwrap();
        let loaded = Data::load(&path).unwrap();
        assert_eq!(loaded.records, [record(&[("ours", &[2.0])])]);
        assert!(loaded.find(Group::Machine, "log").is_none());
    }
}
