//! Flags that several verbs share, as the user writes them.
//!
//! This module only parses. The module `description` resolves the values.

mod job;
mod machine;
mod network;
pub(crate) mod numbers;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use crate::completions;

pub(crate) use self::job::{ArtifactsOn, CloudArgs, JOB, JobArgs, Session, Stderr};
pub(crate) use self::machine::{Accel, HardwareArgs, VmArgs};
pub(crate) use self::network::{Net, NetworkArgs, PolicyArgs};

/// The heading of the options of all verbs in the help.
pub(crate) const GENERAL: &str = "General options";

#[derive(Debug, Default, Args)]
#[command(next_help_heading = GENERAL)]
pub(crate) struct OutputArgs {
    /// Print events as lines of JSON on stderr.
    ///
    /// The verbs ps, wait, stats and "image ls" then also print JSON on standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print only errors.
    ///
    /// The verbs ps and "image ls" then print only names.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print more; twice for everything.
    #[arg(long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Print help: -h is short, --help has all details.
    #[arg(short, long, global = true, action = clap::ArgAction::Help)]
    pub(crate) help: Option<bool>,
    /// Print the version.
    #[arg(short = 'V', long, global = true, action = clap::ArgAction::Version)]
    pub(crate) version: Option<bool>,
}

/// The name of a running job.
#[derive(Debug, Args)]
pub(crate) struct JobName {
    /// The name of the job.
    #[arg(add = ArgValueCompleter::new(completions::jobs))]
    pub(crate) job: String,
}

/// The names of running jobs.
#[derive(Debug, Args)]
pub(crate) struct JobNames {
    /// The names of the jobs.
    #[arg(value_name = "JOB", required = true, add = ArgValueCompleter::new(completions::jobs))]
    pub(crate) jobs: Vec<String>,
}

/// The names of jobs, also of those that have ended.
#[derive(Debug, Args)]
pub(crate) struct AnyJobNames {
    /// The names of the jobs.
    #[arg(value_name = "JOB", required = true, add = ArgValueCompleter::new(completions::all_jobs))]
    pub(crate) jobs: Vec<String>,
}
