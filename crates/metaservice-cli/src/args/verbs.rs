//! The words and flags of the verbs that act on a running job.

use std::path::PathBuf;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use super::numbers;
use crate::candidates;

pub(crate) const PS_HELP: &str = "\
Example:
  metaservice ps -q | xargs -r -n1 metaservice kill";

pub(crate) const INSPECT_HELP: &str = "\
Example:
  metaservice inspect build | jq .state";

pub(crate) const WAIT_HELP: &str = "\
Example:
  metaservice wait build && echo it succeeded

Exit status: the job's own.";

pub(crate) const LOGS_HELP: &str = "\
Example:
  metaservice logs -f --since 10m --tail 100 build";

pub(crate) const EXEC_HELP: &str = "\
Example:
  metaservice exec -e DEBUG=1 -w /srv -u nobody build -- make check

Exit status: the command's own, 125 when metaservice itself failed, 126 when the
command cannot be run, 127 when it is not found, 128+N after signal N.";

pub(crate) const SHELL_HELP: &str = "\
Example:
  metaservice shell --escape '~,.' build

Exit status: the shell's own, 128+N after signal N, 0 after the escape sequence.";

pub(crate) const LS_HELP: &str = "\
Examples:
  metaservice ls -l build /var/log
  metaservice ls -lh build:/var/log";

pub(crate) const CP_HELP: &str = "\
Examples:
  metaservice cp build:/var/log/messages .
  metaservice cp ./site/. build:/srv/www
  metaservice cp build:/etc - | tar t

As with docker: what is copied goes into a directory that exists under its own name, and of
DIR/. only the content. A link is copied as a link, and so are all links in a directory; -L, or
a slash at the end, copies what SRC leads to. \"-\" is a tar archive on standard input or
output. Modes, times and holes are kept. Sockets, FIFOs and devices are left out, and so are
file systems of the kernel (/proc, /sys) unless SRC is in one: a note says so.
A file at DEST, or a link to one, is replaced when the copy is complete. A device, a pipe or
/dev/stdout, or a link to one, gets the bytes.";

pub(crate) const KILL_HELP: &str = "\
Examples:
  metaservice kill build
  metaservice kill -s HUP build";

pub(crate) const STATS_HELP: &str = "\
Example:
  metaservice stats --follow --json build | jq .memoryUsed";

pub(crate) const FORWARD_HELP: &str = "\
Examples:
  metaservice forward build 8080:80
  metaservice forward build 0.0.0.0:8443:443 0:5432

Ports of the guest's own localhost. It ends with Ctrl-C or with the job.";

/// The name of a job that runs.
#[derive(Debug, Args)]
pub(crate) struct JobName {
    /// The job's name.
    #[arg(add = ArgValueCompleter::new(candidates::jobs))]
    pub(crate) job: String,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on with what is logged from now on, until the job ends.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what is not older than this: 10m, 2024-05-01, 2024-05-01T12:00:00Z, or a Unix time.
    #[arg(long, value_name = "DURATION|TIME")]
    pub(crate) since: Option<String>,
    /// Only the last N lines; "all" for all.
    #[arg(short = 'n', long, value_name = "N", value_parser = numbers::lines)]
    pub(crate) tail: Option<u64>,
    #[command(flatten)]
    pub(crate) name: JobName,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Hand on our standard input.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal: ours.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Leave the command alone once it was started; it ends with the job at the latest.
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) around: AroundArgs,
    #[command(flatten)]
    pub(crate) name: JobName,
    /// The command and its arguments. With -i alone it is the guest's default shell.
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    #[command(flatten)]
    pub(crate) around: AroundArgs,
    #[command(flatten)]
    pub(crate) name: JobName,
    /// Another command than the guest's default shell, and its arguments.
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

/// What is around a command.
#[derive(Debug, Args)]
pub(crate) struct AroundArgs {
    /// Set a variable of the command's environment; without =VALUE, hand on our own.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Run it in this folder of the guest's.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Run it as this user: NAME, UID, NAME:GROUP or UID:GID.
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// The keys that leave a command with a terminal, which ends it; "none" for none.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) escape: String,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// With mode, owner, size and time.
    #[arg(short)]
    pub(crate) long: bool,
    /// With -l: sizes as 1.5K, 234M, 2.0G.
    #[arg(short = 'h', long)]
    pub(crate) human: bool,
    /// Nothing is hidden in any case.
    #[arg(short, long, hide = true)]
    pub(crate) all: bool,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    pub(crate) help: Option<bool>,
    /// Also what is in the folders below.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// The job's name, or JOB:PATH.
    #[arg(value_name = "JOB", add = ArgValueCompleter::new(candidates::jobs))]
    pub(crate) job: String,
    /// The directory in the guest.
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// Copy what SRC leads to where it is a link.
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// Keep set-user-id and set-group-id bits.
    #[arg(long)]
    pub(crate) set_id: bool,
    /// What to copy: JOB:PATH, a path of ours, or "-" for a tar archive on standard input.
    #[arg(value_name = "SRC", add = ArgValueCompleter::new(candidates::places))]
    pub(crate) source: String,
    /// Where to: JOB:PATH, a path of ours, or "-" for a tar archive on standard output.
    #[arg(value_name = "DEST", add = ArgValueCompleter::new(candidates::places))]
    pub(crate) destination: String,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Send the command's main process this signal only: TERM, SIGTERM or 15.
    #[arg(short, long, value_name = "SIGNAL")]
    pub(crate) signal: Option<String>,
    #[command(flatten)]
    pub(crate) name: JobName,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Go on until the job ends.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How often, with --follow: 100ms to 10s.
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub(crate) interval: String,
    #[command(flatten)]
    pub(crate) name: JobName,
}

#[derive(Debug, Args)]
pub(crate) struct ForwardArgs {
    #[command(flatten)]
    pub(crate) name: JobName,
    /// [ADDR:]PORT:GUEST_PORT. By default on 127.0.0.1; port 0 is any free one, which is told.
    #[arg(value_name = "SPEC", required = true)]
    pub(crate) specs: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder that gets a page for each verb; without it, the first page goes to stdout.
    #[arg(value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// Print the help of all verbs as one page of Markdown.
    #[arg(long, hide = true, conflicts_with = "folder")]
    pub(crate) markdown: bool,
}
