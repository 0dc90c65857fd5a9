//! The flags of a job, which `run` and `serve` share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use crate::completions;

/// The heading of a job's options in the help. They are defined in several places.
pub(crate) const JOB: &str = "Job options";

#[derive(Debug, Args)]
#[command(next_help_heading = JOB)]
pub(crate) struct JobArgs {
    /// The name of the job. It is also the host name of the guest, without --hostname.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The working directory of the command: an absolute path in the guest.
    ///
    /// Without it, the command starts in the "workdir" of the agent's configuration file, else in
    /// the directory of the agent. The directory must exist. "exec" and "cp" start there too.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// The user of the command: NAME, UID, NAME:GROUP or UID:GID.
    ///
    /// Without it, the command runs as the "user" of the agent's configuration file, else as the
    /// user of the agent, which is usually root. Names are those of the guest. "exec" also runs as
    /// this user, and files that "cp" brings in belong to it.
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// The host name of the guest [default: the name of the job].
    ///
    /// An agent that is not root cannot set it. With "serve", the machine keeps its own name if
    /// this option is not given.
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Put this program in front of the command; "" for none.
    ///
    /// It replaces the "entrypoint" of the agent's configuration file.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Set a variable of the command. Without =VALUE, pass your own. Repeatable.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Read variables from a file of NAME=VALUE lines. Repeatable.
    ///
    /// The format is that of docker: quotes are part of the value. --env overrides the file.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Pass a secret variable of your environment to the command, through the agent. Repeatable.
    ///
    /// The service gives the value once, to the agent that claims the job, and to no other process
    /// of the guest. The agent puts it into the environment of the command. It is in no argument.
    /// This implies --session required.
    #[arg(long, value_name = "NAME")]
    pub(crate) secret: Vec<String>,
    /// Kill the command after this time: 90, 90s, 5m, 1h 30m.
    ///
    /// The time starts when the guest fetches its command. The boot does not count.
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
    /// Copy a file or a directory into the guest before the command starts. Repeatable.
    ///
    /// The rules are those of "cp". Without GUEST, the copy has the name of HOST, in the working
    /// directory (--workdir). "." and DIR/. copy the content of a directory. The command starts
    /// when all copies are complete. If one fails, the command does not start, and the exit status
    /// is 125. Write a colon in HOST as "\:".
    #[arg(long, value_name = "HOST[:GUEST]")]
    pub(crate) copy_in: Vec<String>,
    /// Fetch a file or a directory after the command has ended. Repeatable.
    ///
    /// GUEST_PATH can be a pattern: *, ?, [a-z], {a,b}, or ** for any number of directories. Each
    /// match goes into the directory DEST, which is created if it does not exist. A pattern without
    /// a match counts as a missing artifact. Write a special character as [*], and a colon in
    /// GUEST_PATH as "\:".
    #[arg(long, value_name = "GUEST_PATH[:DEST]")]
    pub(crate) artifact: Vec<String>,
    /// When to fetch the artifacts: always, or after the failure or the success of the command.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = ArtifactsOn::Always)]
    pub(crate) artifacts_on: ArtifactsOn,
    /// Where stderr of the command goes [default: separate].
    ///
    /// "separate" writes it to stderr of the tool, and "logs" shows it there too. Lines of the two
    /// outputs can change places if the command writes both at almost the same time. "merged"
    /// writes it to stdout, in the exact order. With a terminal there is one output. With --json,
    /// both outputs go to stdout, because stderr has the events.
    #[arg(long, value_name = "HOW", value_enum)]
    pub(crate) stderr: Option<Stderr>,
    /// Also write the log to a file: both outputs, in order of arrival.
    ///
    /// If the path is a device, a pipe or /dev/stdout, or a link to one, the tool writes to it.
    /// Another link is replaced. The same holds for --artifact, --console, --pcap and cp.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// The values of --secret, which were removed from the environment.
    #[arg(skip)]
    pub(crate) withdrawn: BTreeMap<String, String>,
    /// Whether the agent must claim the job before it is served.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Session::Claimed)]
    pub(crate) session: Session,
    /// Kill the command when its log is larger than this.
    #[arg(long, value_name = "SIZE", default_value = "64G")]
    pub(crate) max_log: String,
    /// Refuse larger artifacts. This also limits what "cp" fetches.
    #[arg(long, value_name = "SIZE", default_value = "64G")]
    pub(crate) max_artifact: String,
    /// Keep nothing of the job when it has ended: no log, and no result in "ps -a".
    #[arg(long)]
    pub(crate) rm: bool,
    /// Change a limit on what the guest can use of the host. Repeatable.
    ///
    /// "metaservice help limits" lists the names and defaults. An example: connections=64.
    #[arg(long, value_name = "NAME=VALUE", alias = "bound")]
    #[arg(add = ArgValueCompleter::new(completions::limits))]
    pub(crate) limit: Vec<String>,
    /// The command and its arguments, after "--".
    #[arg(value_name = "COMMAND", required_unless_present = "entrypoint", trailing_var_arg = true)]
    #[arg(help_heading = None::<&str>)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Cloud image options")]
pub(crate) struct CloudArgs {
    /// A public key for logins to the image. Repeatable.
    ///
    /// Give a file of public keys, or the key itself.
    #[arg(long, value_name = "FILE|KEY")]
    pub(crate) ssh_key: Vec<String>,
    /// User data for cloud-init: a script, #cloud-config or similar.
    ///
    /// cloud-init processes them before the command starts. Each process of the guest can read
    /// them: do not put secrets in them.
    #[arg(long, value_name = "FILE")]
    pub(crate) user_data: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stderr {
    /// It is an output of its own.
    Separate,
    /// It goes to stdout.
    Merged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArtifactsOn {
    /// Whatever the command does.
    Always,
    /// If the command fails, or is killed.
    Failure,
    /// If the command succeeds.
    Success,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Session {
    /// Only an agent that has claimed the job is served.
    Required,
    /// After an agent has claimed the job, only this agent is served. Agents of version 1 cannot
    /// claim, and still work.
    Claimed,
    /// Each process of the guest is served.
    Off,
}
