//! The verbs.
//!
//! Each verb has a module, which owns its flags, its help and what it does.

pub(crate) mod api;
pub(crate) mod attach;
pub(crate) mod background;
pub(crate) mod completions;
pub(crate) mod cp;
pub(crate) mod doctor;
mod each;
pub(crate) mod exec;
pub(crate) mod fleet;
pub(crate) mod forward;
pub(crate) mod help;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod net;
mod planned;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod shell;
pub(crate) mod stats;
pub(crate) mod wait;
pub(crate) mod web;

use anyhow::Result;
use clap::Subcommand;

use crate::output::printer::Printer;
use crate::status::ExitStatus;

/// The verbs in the order and groups of the help.
pub(crate) const GROUPS: [(&str, &[&str]); 6] = [
    ("Start a job", &["run", "serve"]),
    (
        "Running jobs",
        &[
            "ps", "inspect", "logs", "attach", "wait", "exec", "shell", "ls", "cp", "forward",
            "stats", "kill", "net", "api", "web",
        ],
    ),
    ("Ended jobs", &["rm", "prune"]),
    (
        "Jobs on many hosts",
        &[
            "worker",
            "submit",
            "jobs",
            "cancel",
            "retry",
            "artifacts",
            "workers",
            "drain",
            "tenants",
        ],
    ),
    ("Images", &["image"]),
    ("Set-up and help", &["doctor", "completions", "man", "help"]),
];

/// A verb, with its flags. The help of each is on its type.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<run::Run>),
    Serve(Box<serve::Serve>),
    Ps(ps::Ps),
    Inspect(inspect::Inspect),
    Wait(wait::Wait),
    Logs(logs::Logs),
    Attach(attach::Attach),
    Exec(exec::Exec),
    Shell(shell::Shell),
    Ls(ls::Ls),
    Cp(cp::Cp),
    Kill(kill::Kill),
    Rm(rm::Rm),
    #[command(hide = true)]
    Background(background::Background),
    Prune(prune::Prune),
    Stats(stats::StatsVerb),
    Forward(forward::ForwardVerb),
    Net(net::Net),
    Api(api::ApiVerb),
    Web(web::Web),
    Worker(fleet::worker::Worker),
    Submit(Box<fleet::submit::Submit>),
    #[command(visible_alias = "queue")]
    Jobs(fleet::jobs::Jobs),
    Cancel(fleet::cancel::Cancel),
    Retry(fleet::retry::Retry),
    Artifacts(fleet::artifacts::Artifacts),
    Workers(fleet::workers::Workers),
    Drain(fleet::drain::Drain),
    Tenants(fleet::tenants::Tenants),
    Image(image::Image),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
    Help(help::Help),
    Man(man::Man),
}

impl Command {
    /// Whether the verb has the user's terminal, and its work may outlive it.
    pub(crate) fn may_leave(&self) -> bool {
        matches!(self, Self::Run(run) if run.may_leave())
    }

    /// Runs the verb, and returns the exit status. `cli` is the parser, for its help.
    pub(crate) async fn run(self, cli: clap::Command, printer: Printer) -> Result<ExitStatus> {
        match self {
            Self::Run(args) => run::run(*args, printer).await,
            Self::Serve(args) => serve::serve(*args, printer).await,
            Self::Ps(args) => ps::ps(args, printer).await,
            Self::Inspect(args) => inspect::inspect(args, printer).await,
            Self::Wait(args) => wait::wait(args, printer).await,
            Self::Logs(args) => logs::logs(args, printer).await,
            Self::Attach(args) => attach::attach(args, printer).await,
            Self::Exec(args) => exec::exec(args, printer).await,
            Self::Shell(args) => shell::shell(args, printer).await,
            Self::Ls(args) => ls::ls(args, printer).await,
            Self::Cp(args) => cp::cp(args, printer).await,
            Self::Kill(args) => kill::kill(args, printer).await,
            Self::Background(_) => background::background(printer).await,
            Self::Rm(args) => rm::rm(args, printer).await,
            Self::Prune(args) => prune::prune(&args, printer).await,
            Self::Stats(args) => stats::stats(args, printer).await,
            Self::Net(args) => net::net(args, printer).await,
            Self::Api(_) => api::api(printer).await,
            Self::Web(args) => web::web(args, printer).await,
            Self::Worker(args) => fleet::worker::worker(args, printer).await,
            Self::Submit(args) => fleet::submit::submit(*args, printer).await,
            Self::Jobs(args) => fleet::jobs::jobs(args, printer).await,
            Self::Cancel(args) => fleet::cancel::cancel(args, printer).await,
            Self::Retry(args) => fleet::retry::retry(args, printer).await,
            Self::Artifacts(args) => fleet::artifacts::artifacts(args, printer).await,
            Self::Workers(args) => fleet::workers::workers(args, printer).await,
            Self::Drain(args) => fleet::drain::drain(args).await,
            Self::Tenants(args) => fleet::tenants::tenants(args, printer).await,
            Self::Forward(args) => forward::forward(args, printer).await,
            Self::Image(args) => image::image(args, printer).await,
            Self::Doctor(args) => doctor::doctor(&args, &cli, printer).await,
            Self::Completions(args) => completions::completions(&args),
            Self::Help(args) => help::help(&args, cli),
            Self::Man(args) => man::man(&args, cli),
        }
    }
}
