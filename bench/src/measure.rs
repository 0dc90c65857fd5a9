//! What a measure is: a question, those who are asked it, and the figure to reach.
//!
//! Owns the words of a measure and nothing of how it is run, kept or shown. A measure is prepared
//! (machines booted, files made) by its [`Entry`], asked sample by sample in turn, and dropped.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a measure takes place: what can be run again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Group {
    /// Host and agent on one machine, over its loopback interface.
    Loopback,
    /// In a virtual machine.
    Machine,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback",
            Self::Machine => "machine",
        })
    }
}

/// A measure that can be prepared.
pub(crate) struct Entry {
    pub(crate) group: Group,
    /// Names it on the command line and in the data: `log`, `artifact`.
    pub(crate) id: &'static str,
    /// Whether the quick run, a minute in all, has it too.
    pub(crate) quick: bool,
    pub(crate) prepare: fn(&Setting) -> anyhow::Result<Measure>,
}

/// What a measure is prepared with.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The run is to take a minute in all: a fraction of the bytes, of the guests, of the times.
    pub(crate) quick: bool,
    /// The agent as guests get it: static, optimised for size.
    pub(crate) agent: PathBuf,
    /// The command line tool.
    pub(crate) tool: PathBuf,
}

impl Setting {
    /// The quick run's number or the whole run's.
    pub(crate) fn pick<T>(&self, quick: T, whole: T) -> T {
        if self.quick { quick } else { whole }
    }

    /// The agent, if it has been built.
    pub(crate) fn agent(&self) -> anyhow::Result<&Path> {
        anyhow::ensure!(self.agent.is_file(), "there is no agent at {}", self.agent.display());
        Ok(&self.agent)
    }

    /// The command line tool, if it has been built.
    pub(crate) fn tool(&self) -> anyhow::Result<&Path> {
        anyhow::ensure!(self.tool.is_file(), "there is no tool at {}", self.tool.display());
        Ok(&self.tool)
    }
}

/// Something measured: what it is called, in what unit, and which way is better.
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

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Ours,
    /// What people use today.
    Peer,
    /// What the machine itself can do.
    Limit,
}

/// One sample: each quantity by its name. A subject may lack some.
pub(crate) type Values = Vec<(&'static str, f64)>;

/// One who is asked.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) sample: Box<dyn FnMut() -> anyhow::Result<Values>>,
}

/// A figure to reach: a subject's quantity against a bound of `factor` times a reference (or
/// times one) plus `plus`. With more being better it is at least that, otherwise at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Goal {
    pub(crate) subject: String,
    pub(crate) quantity: String,
    pub(crate) factor: f64,
    pub(crate) plus: f64,
    pub(crate) reference: Option<Reference>,
}

/// A subject's quantity that another is compared with, taken from the same round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) subject: String,
    pub(crate) quantity: String,
}

impl Goal {
    /// `quantity` of `subject` against a number of its own unit.
    pub(crate) fn absolute(subject: &str, quantity: &str, bound: f64) -> Self {
        let (subject, quantity) = (subject.to_owned(), quantity.to_owned());
        Self { subject, quantity, factor: bound, plus: 0.0, reference: None }
    }

    /// `quantity` of `subject` against `factor` times the same quantity of `reference`.
    pub(crate) fn ratio(subject: &str, quantity: &str, factor: f64, reference: &str) -> Self {
        Self::absolute(subject, quantity, factor).against(reference, quantity)
    }

    /// The same against a quantity of a subject's.
    pub(crate) fn against(mut self, subject: &str, quantity: &str) -> Self {
        let (subject, quantity) = (subject.to_owned(), quantity.to_owned());
        self.reference = Some(Reference { subject, quantity });
        self
    }

    /// The same with so much more.
    pub(crate) fn plus(mut self, plus: f64) -> Self {
        self.plus = plus;
        self
    }
}

/// A measure, prepared.
pub(crate) struct Measure {
    pub(crate) title: &'static str,
    /// What is measured and how, in a few sentences for the page.
    pub(crate) how: String,
    pub(crate) quantities: Vec<Quantity>,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) goals: Vec<Goal>,
    /// Rounds of a whole run, at least 5.
    pub(crate) rounds: usize,
}

impl Measure {
    pub(crate) fn new(title: &'static str, how: impl Into<String>) -> Self {
        let (quantities, subjects, goals) = (Vec::new(), Vec::new(), Vec::new());
        Self { title, how: how.into(), quantities, subjects, goals, rounds: 5 }
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
}
