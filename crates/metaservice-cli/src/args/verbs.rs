//! The options of the verbs that act on a running job, and their help.

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

Exit status: that of the job.";

pub(crate) const LOGS_HELP: &str = "\
Example:
  metaservice logs -f --since 10m --tail 100 build";

pub(crate) const EXEC_HELP: &str = "\
Example:
  metaservice exec -e DEBUG=1 -w /srv -u www-data build -- make check

Exit status:
  that of the command; 125 if metaservice failed, 126 if the command cannot be run,
  127 if it is not found, 128+N after signal N.";

pub(crate) const SHELL_HELP: &str = "\
Example:
  metaservice shell --escape '~,.' build

Exit status: that of the shell; 128+N after signal N, 0 after the escape sequence.";

pub(crate) const LS_HELP: &str = "\
Examples:
  metaservice ls -l build /var/log
  metaservice ls -lh build:/var/log";

pub(crate) const CP_HELP: &str = "\
Examples:
  metaservice cp build:/var/log/messages .
  metaservice cp ./site/. build:/srv/www
  metaservice cp build:/etc - | tar t

The rules are those of docker cp:
  - If DEST is a directory, the copy is placed in it, under its own name.
  - DIR/. copies the content of DIR.
  - Links are copied as links. -L, or a slash at the end, copies the target of SRC.
  - \"-\" is a tar archive on standard input or output.

Modes, times and holes are kept. Sockets, FIFOs and devices are left out, and so are file systems of
the kernel (/proc, /sys) unless SRC is in one. A note says so.

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

The ports are those of localhost in the guest. The verb ends with Ctrl-C or with the job.";

/// The name of a running job.
#[derive(Debug, Args)]
pub(crate) struct JobName {
    /// The name of the job.
    #[arg(add = ArgValueCompleter::new(candidates::jobs))]
    pub(crate) job: String,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Follow the log until the job ends.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show the log since a time: 10m, 2024-05-01, 2024-05-01T12:00:00Z, or a Unix time.
    #[arg(long, value_name = "DURATION|TIME")]
    pub(crate) since: Option<String>,
    /// Show the last N lines, or "all".
    #[arg(short = 'n', long, value_name = "N", value_parser = numbers::lines)]
    pub(crate) tail: Option<u64>,
    #[command(flatten)]
    pub(crate) name: JobName,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Pass standard input to the command.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command your terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Start the command and leave it in the background. It ends with the job.
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) around: AroundArgs,
    #[command(flatten)]
    pub(crate) name: JobName,
    /// The command and its arguments [default with -i: the default shell of the guest].
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    #[command(flatten)]
    pub(crate) around: AroundArgs,
    #[command(flatten)]
    pub(crate) name: JobName,
    /// A command and its arguments [default: the default shell of the guest].
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

/// The environment of a command, and how to leave it.
#[derive(Debug, Args)]
pub(crate) struct AroundArgs {
    /// Set a variable of the command. Without =VALUE, pass your own. Repeatable.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// The working directory in the guest.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// The user: NAME, UID, NAME:GROUP or UID:GID.
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// The keys that end a command with a terminal, or "none".
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) escape: String,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Show mode, owner, size and time.
    #[arg(short)]
    pub(crate) long: bool,
    /// With -l, print sizes as 1.5K, 234M, 2.0G.
    #[arg(short = 'h', long)]
    pub(crate) human: bool,
    /// Accepted for compatibility: all entries are always listed.
    #[arg(short, long, hide = true)]
    pub(crate) all: bool,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    pub(crate) help: Option<bool>,
    /// List the directories below too.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// The name of the job, or JOB:PATH.
    #[arg(value_name = "JOB", add = ArgValueCompleter::new(candidates::jobs))]
    pub(crate) job: String,
    /// The directory in the guest.
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// If SRC is a link, copy its target.
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// Keep set-user-id and set-group-id bits.
    #[arg(long)]
    pub(crate) set_id: bool,
    /// The source: JOB:PATH, a path of the host, or "-" for a tar archive on standard input.
    #[arg(value_name = "SRC", add = ArgValueCompleter::new(candidates::places))]
    pub(crate) source: String,
    /// The destination: JOB:PATH, a path of the host, or "-" for a tar archive on standard output.
    #[arg(value_name = "DEST", add = ArgValueCompleter::new(candidates::places))]
    pub(crate) destination: String,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Send this signal to the main process of the command: TERM, SIGTERM or 15.
    ///
    /// Without this option, the command and all of its processes are killed.
    #[arg(short, long, value_name = "SIGNAL")]
    pub(crate) signal: Option<String>,
    #[command(flatten)]
    pub(crate) name: JobName,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Repeat until the job ends.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The interval of --follow: 100ms to 10s.
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub(crate) interval: String,
    #[command(flatten)]
    pub(crate) name: JobName,
}

#[derive(Debug, Args)]
pub(crate) struct ForwardArgs {
    #[command(flatten)]
    pub(crate) name: JobName,
    /// [ADDR:]PORT:GUEST_PORT. Repeatable.
    ///
    /// The default address is 127.0.0.1. Port 0 stands for any free port, which is printed.
    #[arg(value_name = "SPEC", required = true)]
    pub(crate) specs: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The directory for the pages.
    ///
    /// It gets one page for each verb. Without it, the main page is printed.
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Print the help of all verbs as one page of Markdown.
    #[arg(long, hide = true, conflicts_with = "directory")]
    pub(crate) markdown: bool,
}
