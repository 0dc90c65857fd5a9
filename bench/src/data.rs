//! The data file: every sample of every measure, and the machine on which it was taken.
//!
//! Owns its format, reading, writing and merging. The page and the plots show only what is in this
//! file.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::measure::{Comparison, Goal, Group, Quantity, Role};

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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) comparisons: Vec<Comparison>,
    pub(crate) subjects: Vec<Samples>,
}

/// One subject's samples, in the order of the rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Samples {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The values of each round, by the name of the quantity; empty if the sample failed.
    pub(crate) rounds: Vec<BTreeMap<String, f64>>,
    /// The last error of a sample that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<String>,
}

impl Data {
    /// Reads a data file. A file that does not exist is empty data.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is not a data file of this version", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Replaces the file atomically.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let directory = path.parent().context("a data file is in a directory")?;
        fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.persist(path)?;
        Ok(())
    }

    /// Adds a record, or replaces the earlier record of the same measure.
    pub(crate) fn put(&mut self, record: Record) {
        match self.records.iter_mut().find(|old| old.group == record.group && old.id == record.id) {
            Some(old) => *old = record,
            None => self.records.push(record),
        }
    }

    /// Sorts the records in the order of the measures, and removes records without a measure.
    pub(crate) fn arrange(&mut self, order: &[(Group, &str)]) {
        let position = |record: &Record| {
            order.iter().position(|(group, id)| *group == record.group && *id == record.id)
        };
        self.records.retain(|record| position(record).is_some());
        self.records.sort_by_key(position);
    }

    pub(crate) fn find(&self, group: Group, id: &str) -> Option<&Record> {
        self.records.iter().find(|record| record.group == group && record.id == id)
    }
}

impl Record {
    pub(crate) fn quantity(&self, name: &str) -> Option<&Quantity> {
        self.quantities.iter().find(|quantity| quantity.name == name)
    }

    /// The values of one quantity of a subject, one for each round.
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

    /// A record with one quantity, `rate`; more is better.
    pub(crate) fn record(subjects: &[(&str, &[f64])]) -> Record {
        let samples = |(name, values): &(&str, &[f64])| Samples {
            name: (*name).to_owned(),
            role: if *name == "metaservice" { Role::Metaservice } else { Role::Limit },
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
            how: "Unchanged.".to_owned(),
            on: Facts::default(),
            quick: false,
            quantities: vec![Quantity {
                name: "rate".to_owned(),
                unit: "MB/s".to_owned(),
                better: Better::More,
            }],
            goals: Vec::new(),
            comparisons: Vec::new(),
            subjects: subjects.iter().map(samples).collect(),
        }
    }

    #[test]
    fn a_record_replaces_the_earlier_one_and_survives_a_round_trip() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/data.json");
        let mut data = Data::load(&path).unwrap();
        assert!(data.records.is_empty());
        data.put(record(&[("metaservice", &[1.0])]));
        data.put(record(&[("metaservice", &[2.0])]));
        let mut other = record(&[("metaservice", &[3.0])]);
        other.id = "gone".to_owned();
        data.put(other);
        data.arrange(&[(Group::Loopback, "log")]);
        data.save(&path).unwrap();
        let loaded = Data::load(&path).unwrap();
        assert_eq!(loaded.records, [record(&[("metaservice", &[2.0])])]);
        assert!(loaded.find(Group::Machine, "log").is_none());
    }
}
