//! Defines a measure: what is measured, the subjects, and the figures to reach.
//!
//! Owns the description of a measure. Does not know how a measure is run, stored or shown. The
//! [`Entry`] prepares a measure (boots machines, creates files). Then samples of each subject are
//! taken in turn, and the measure is dropped.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a measure takes place. Each group can be run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Group {
    /// Host and agent on one machine, over its loopback interface.
    Loopback,
    /// In a virtual machine.
    Machine,
    /// Jobs of a queue, with one server and one worker on this host.
    Queue,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback",
            Self::Machine => "machine",
            Self::Queue => "queue",
        })
    }
}

/// A measure that can be prepared.
pub(crate) struct Entry {
    pub(crate) group: Group,
    /// The name on the command line and in the data file: `log`, `artifact`.
    pub(crate) id: &'static str,
    /// Whether it is part of the quick run, which takes one minute in total.
    pub(crate) quick: bool,
    pub(crate) prepare: fn(&Setting) -> anyhow::Result<Measure>,
}

/// The settings with which a measure is prepared.
#[derive(Debug)]
pub(crate) struct Setting {
    /// A quick run takes one minute in total: fewer bytes, guests and repetitions.
    pub(crate) quick: bool,
    /// The agent, built as for guests: static, optimised for size.
    pub(crate) agent: PathBuf,
    /// The command line tool.
    pub(crate) tool: PathBuf,
}

impl Setting {
    /// The number for a quick run or for a full run.
    pub(crate) fn pick<T>(&self, quick: T, whole: T) -> T {
        if self.quick { quick } else { whole }
    }

    /// The path of the agent. An agent that has not been built is an error.
    pub(crate) fn agent(&self) -> anyhow::Result<&Path> {
        anyhow::ensure!(self.agent.is_file(), "there is no agent at {}", self.agent.display());
        Ok(&self.agent)
    }

    /// The path of the command line tool. A tool that has not been built is an error.
    pub(crate) fn tool(&self) -> anyhow::Result<&Path> {
        anyhow::ensure!(self.tool.is_file(), "there is no tool at {}", self.tool.display());
        Ok(&self.tool)
    }
}

/// A measured quantity: its name, its unit, and whether more or less is better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantity {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) better: Better,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    More,
    Less,
}

/// What a subject is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// A part of this project.
    Metaservice,
    /// A program that people use for the same purpose today.
    Peer,
    /// The limit of the machine.
    Limit,
}

/// One sample: a value for each quantity, by name. A subject can omit quantities.
pub(crate) type Values = Vec<(&'static str, f64)>;

/// A subject of a measure.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) sample: Box<dyn FnMut() -> anyhow::Result<Values>>,
}

/// A figure to reach. The target is `factor` times the reference plus `plus`; without a reference
/// it is `factor` plus `plus`. It is a minimum if more is better, and a maximum otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Goal {
    pub(crate) subject: String,
    pub(crate) quantity: String,
    pub(crate) factor: f64,
    pub(crate) plus: f64,
    pub(crate) reference: Option<Reference>,
}

/// A quantity of a subject relative to that of another, without a figure to reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) subject: String,
    pub(crate) quantity: String,
    pub(crate) reference: Reference,
}

impl Comparison {
    /// Compares `quantity` of `subject` with the same quantity of `reference`.
    pub(crate) fn new(subject: &str, quantity: &str, reference: &str) -> Self {
        let [subject, reference] = [subject, reference].map(str::to_owned);
        let quantity = quantity.to_owned();
        let reference = Reference { subject: reference, quantity: quantity.clone() };
        Self { subject, quantity, reference }
    }
}

/// The quantity of a subject with which another is compared, from the same round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) subject: String,
    pub(crate) quantity: String,
}

impl Goal {
    /// Compares `quantity` of `subject` with a number in the same unit.
    pub(crate) fn absolute(subject: &str, quantity: &str, target: f64) -> Self {
        let (subject, quantity) = (subject.to_owned(), quantity.to_owned());
        Self { subject, quantity, factor: target, plus: 0.0, reference: None }
    }

    /// Compares `quantity` of `subject` with `factor` times the same quantity of `reference`.
    pub(crate) fn ratio(subject: &str, quantity: &str, factor: f64, reference: &str) -> Self {
        Self::absolute(subject, quantity, factor).against(reference, quantity)
    }

    /// Uses a quantity of a subject as the reference.
    pub(crate) fn against(mut self, subject: &str, quantity: &str) -> Self {
        let (subject, quantity) = (subject.to_owned(), quantity.to_owned());
        self.reference = Some(Reference { subject, quantity });
        self
    }

    /// Adds a constant to the target.
    pub(crate) fn plus(mut self, plus: f64) -> Self {
        self.plus = plus;
        self
    }
}

/// A prepared measure.
pub(crate) struct Measure {
    pub(crate) title: &'static str,
    /// What is measured and how: a few sentences for the page.
    pub(crate) how: String,
    pub(crate) quantities: Vec<Quantity>,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) goals: Vec<Goal>,
    pub(crate) comparisons: Vec<Comparison>,
    /// The rounds of a full run, at least 5.
    pub(crate) rounds: usize,
}

impl Measure {
    pub(crate) fn new(title: &'static str, how: impl Into<String>) -> Self {
        Self {
            title,
            how: how.into(),
            quantities: Vec::new(),
            subjects: Vec::new(),
            goals: Vec::new(),
            comparisons: Vec::new(),
            rounds: 5,
        }
    }

    pub(crate) fn quantity(mut self, name: &str, unit: &str, better: Better) -> Self {
        self.quantities.push(Quantity { name: name.to_owned(), unit: unit.to_owned(), better });
        self
    }

    pub(crate) fn subject(
        mut self,
        name: &'static str,
        role: Role,
        sample: impl FnMut() -> anyhow::Result<Values> + 'static,
    ) -> Self {
        self.subjects.push(Subject { name, role, sample: Box::new(sample) });
        self
    }

    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    pub(crate) fn comparison(mut self, comparison: Comparison) -> Self {
        self.comparisons.push(comparison);
        self
    }
}
