//! The command line as the user writes it: verbs, flags and their help. Nothing is resolved here.

mod image;
pub(crate) mod numbers;
mod verbs;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::builder::StyledStr;
use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use clap_complete::engine::ArgValueCompleter;

pub(crate) use self::image::{ImageCommand, ImportArgs, PrepareArgs, RmArgs, SnapshotArgs};
pub(crate) use self::verbs::{
    AroundArgs, CpArgs, ExecArgs, ForwardArgs, JobName, KillArgs, LogsArgs, LsArgs, ManArgs,
    ShellArgs, StatsArgs,
};

use crate::candidates;

/// Headings of the help. The options of a job and of a machine are defined in several places.
const GENERAL: &str = "General options";
const JOB: &str = "Job options";
const MACHINE: &str = "Machine options";
const SERVICE: &str = "Service options";

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const ROOT_HELP: &str = "\
Examples:
  metaservice run -- uname -a
  metaservice help run           all options of a verb
  metaservice doctor --install   install what is missing";

const RUN_HELP: &str = "\
Examples:
  metaservice run -- uname -a
  metaservice run --rootfs / -e N=3 -- python3 -c 'import os; print(os.environ[\"N\"])'
  metaservice run --rootfs / --artifact /tmp/report.xml -- sh -c \"cd $PWD && make test\"
  metaservice run --image debian --cpus 2 --memory 2G --name build -- sleep 1h

Exit status:
  that of the command; 124 after --timeout, 125 if metaservice failed, 126 if the
  command cannot be run, 127 if it is not found, 128+N after signal N.";

const SERVE_HELP: &str = "\
Examples:
  metaservice serve --listen 192.168.122.1:80 -- make check
  metaservice serve --listen vsock:80 --state /var/lib/job -- make check

Exit status:
  that of the command; 124 after --timeout, 125 if metaservice failed, 126 if the
  command cannot be run, 127 if it is not found, 128+N after signal N.";

const COMPLETIONS_HELP: &str = "\
Examples:
  echo 'source <(metaservice completions bash)' >> ~/.bashrc
  echo 'source <(metaservice completions zsh)' >> ~/.zshrc
  metaservice completions fish > ~/.config/fish/completions/metaservice.fish";

/// The verbs in the order and groups of the help.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Start a job", &["run", "serve"]),
    (
        "Running jobs",
        &["ps", "inspect", "logs", "wait", "exec", "shell", "ls", "cp", "forward", "stats", "kill"],
    ),
    ("Images", &["image"]),
    ("Set-up and help", &["doctor", "completions", "man", "help"]),
];

/// Run a command inside a virtual machine.
#[derive(Debug, Parser)]
#[command(name = "metaservice", version, styles = STYLES, after_help = ROOT_HELP)]
#[command(propagate_version = true, disable_help_subcommand = true)]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[command(help_template = root_template())]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The help of the tool, with its verbs in groups. clap has one list of verbs.
fn root_template() -> StyledStr {
    let verbs = Command::augment_subcommands(clap::Command::new(""));
    let (header, literal) = (STYLES.get_header(), STYLES.get_literal());
    let mut template = "{about}\n\n{usage-heading} {usage}\n".to_owned();
    for (title, names) in GROUPS {
        let _ = writeln!(template, "\n{header}{title}:{header:#}");
        for name in names {
            let about = verbs.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(template, "  {literal}{name:<12}{literal:#} {about}");
        }
    }
    let _ = write!(template, "\n{header}{GENERAL}:{header:#}\n{{options}}{{after-help}}");
    template.into()
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = GENERAL)]
pub(crate) struct OutputArgs {
    /// Print events as lines of JSON on stderr.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print only errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print more; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Print help: -h is short, --help has all details.
    #[arg(short, long, global = true, action = clap::ArgAction::Help)]
    pub(crate) help: Option<bool>,
    /// Print the version.
    #[arg(short = 'V', long, global = true, action = clap::ArgAction::Version)]
    pub(crate) version: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in a new virtual machine, and exit with its status.
    #[command(after_help = RUN_HELP)]
    #[command(mut_arg("command", |arg| arg.required(false).required_unless_present("spec")))]
    Run(RunArgs),
    /// Serve a job to a virtual machine that another program starts.
    #[command(after_help = SERVE_HELP)]
    Serve(ServeArgs),
    /// List the running jobs.
    ///
    /// With -q, print only their names.
    #[command(after_help = verbs::PS_HELP)]
    Ps,
    /// Show everything about a job, as JSON.
    #[command(after_help = verbs::INSPECT_HELP)]
    Inspect(JobName),
    /// Wait until a job ends, print its status, and exit with it.
    #[command(after_help = verbs::WAIT_HELP)]
    Wait(JobName),
    /// Show the log of a job.
    #[command(after_help = verbs::LOGS_HELP)]
    Logs(LogsArgs),
    /// Run one more command in the guest of a job.
    #[command(after_help = verbs::EXEC_HELP)]
    Exec(ExecArgs),
    /// Open a shell in the guest of a job.
    #[command(after_help = verbs::SHELL_HELP)]
    Shell(ShellArgs),
    /// List a directory of the guest.
    #[command(after_help = verbs::LS_HELP, disable_help_flag = true)]
    Ls(LsArgs),
    /// Copy files and directories from or to the guest.
    #[command(after_help = verbs::CP_HELP)]
    Cp(CpArgs),
    /// Kill the command of a job, or send it a signal.
    #[command(after_help = verbs::KILL_HELP)]
    Kill(KillArgs),
    /// Show the processor, memory, disk and network use of a guest.
    #[command(after_help = verbs::STATS_HELP)]
    Stats(StatsArgs),
    /// Forward TCP ports of the host to ports of the guest.
    #[command(after_help = verbs::FORWARD_HELP)]
    Forward(ForwardArgs),
    /// Manage disk images, and snapshots for a fast start.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Check dependencies and suggest fixes.
    Doctor(DoctorArgs),
    /// Print a completion script for a shell.
    ///
    /// It also completes the names of jobs and images.
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Show the help of a verb, or the list of limits.
    #[command(after_help = "Examples:\n  metaservice help run\n  metaservice help limits")]
    Help {
        /// The verb, or "limits".
        #[arg(value_name = "VERB")]
        verb: Vec<String>,
    },
    /// Write the manual pages.
    #[command(after_help = "Example:\n  metaservice man ~/.local/share/man/man1")]
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Give the command a terminal. Its output is the log.
    ///
    /// The terminal has the size of yours.
    #[arg(short, long, help_heading = JOB)]
    pub(crate) tty: bool,
    /// Take the description of the job from a file, as --dry-run=json prints it.
    ///
    /// It is the whole description: no COMMAND and no other option goes with it.
    #[arg(long, value_name = "FILE", help_heading = JOB)]
    pub(crate) spec: Option<PathBuf>,
    /// Print what would be run, and start nothing: the machine in words, or the job as JSON.
    #[arg(long, value_name = "FORM", value_enum, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "text", help_heading = JOB)]
    pub(crate) dry_run: Option<DryRun>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) vm: VmArgs,
    #[command(flatten)]
    pub(crate) cloud: CloudArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The address of the service: IP:PORT, unix:PATH or vsock:PORT.
    #[arg(long, value_name = "ADDR", help_heading = SERVICE)]
    pub(crate) listen: String,
    /// Keep the job in this directory, so that a restarted service continues it.
    ///
    /// The directory gets the log and everything that the service has acknowledged. Start the
    /// service again with the same command line. The directory is created if it does not exist.
    /// Otherwise it must be empty, and only its user may be able to write it.
    #[arg(long, value_name = "DIR", conflicts_with = "log", help_heading = SERVICE)]
    pub(crate) state: Option<PathBuf>,
    /// How long to wait until the guest fetches its command [default: no limit].
    ///
    /// The time of --timeout starts after this.
    #[arg(long, value_name = "DURATION", help_heading = SERVICE)]
    pub(crate) boot_timeout: Option<String>,
    /// A domain name by which the guest knows the service. Repeatable.
    ///
    /// Requests with another domain name are refused. Addresses and names without a dot are always
    /// accepted.
    #[arg(long, value_name = "NAME", help_heading = SERVICE)]
    pub(crate) host_name: Vec<String>,
    /// Also serve the cloud-init of a stock cloud image, and deliver the agent.
    ///
    /// Set the SMBIOS UUID and serial number of the machine to the printed UUID, or to another one
    /// that begins with ec2.
    #[arg(long, help_heading = SERVICE)]
    pub(crate) cloud: bool,
    /// A network card that the image sets up by DHCP. Repeatable.
    ///
    /// Name the card that leads to the service first. Without this option, the image sets up its
    /// first card.
    #[arg(long, value_name = "MAC", requires = "cloud", help_heading = SERVICE)]
    pub(crate) mac: Vec<String>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) image: CloudArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Install what is missing (Debian and Ubuntu).
    #[arg(long)]
    pub(crate) install: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = JOB)]
pub(crate) struct JobArgs {
    /// The name of the job. It is also the host name of the built-in guest.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Set a variable of the command. Without =VALUE, pass your own. Repeatable.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Read variables from a file of NAME=VALUE lines. Repeatable.
    ///
    /// The format is that of docker: quotes are part of the value. --env overrides the file.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Pass a variable of your environment to the agent only. Repeatable.
    ///
    /// The agent can fetch the value once. It is in no argument, and the service gives it to no
    /// other process of the guest.
    #[arg(long, value_name = "NAME")]
    pub(crate) secret: Vec<String>,
    /// Kill the command after this time: 90, 90s, 5m, 1h 30m.
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
    /// Fetch a file after the command has ended, also if it failed. Repeatable.
    ///
    /// Write a colon in GUEST_PATH as "\:".
    #[arg(long, value_name = "GUEST_PATH[:DEST]")]
    pub(crate) artifact: Vec<String>,
    /// Also write the log to a file.
    ///
    /// This holds for --log, --artifact, --console, --pcap and cp: a link to a file is replaced. A
    /// device, a pipe or /dev/stdout, or a link to one, gets the bytes.
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
    /// Change a limit on what the guest can use of the host. Repeatable.
    ///
    /// "metaservice help limits" lists the names and defaults. An example: connections=64.
    #[arg(long, value_name = "NAME=VALUE", alias = "bound")]
    pub(crate) limit: Vec<String>,
    /// The command and its arguments, after "--".
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
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

#[derive(Debug, Args)]
#[command(next_help_heading = MACHINE)]
pub(crate) struct VmArgs {
    /// Boot a disk image: a file, or an image of "image ls".
    ///
    /// Give the name or the sha256:DIGEST of an image, or a path. If a file has the name of an
    /// image, write it as ./NAME. The image is a stock cloud image, whose cloud-init fetches the
    /// agent, or contains the agent. It is never written: changes go to a temporary overlay.
    #[arg(long, value_name = "NAME|DISK", add = ArgValueCompleter::new(candidates::disks))]
    pub(crate) image: Option<PathBuf>,
    /// Use a directory of the host as the root of the guest, read-only.
    ///
    /// What the guest writes goes to a temporary overlay in its memory. The command starts in /.
    /// The guest has its own /tmp, which hides the one of the host.
    ///
    /// Under --rootfs /, a guest reads every file that you can read, and with --net user it can
    /// send them anywhere. These paths are hidden: /proc, /sys, /dev, /run and /tmp of the host;
    /// other file systems in the directory; shadow files (su in the guest needs --show
    /// /etc/shadow); the state of metaservice; and the usual places of credentials: ~/.ssh,
    /// ~/.gnupg, ~/.aws, ~/.config/gcloud, ~/.kube, ~/.docker, ~/.netrc and similar. The guest sees
    /// what the host changes.
    #[arg(long, value_name = "DIR", conflicts_with = "image")]
    pub(crate) rootfs: Option<PathBuf>,
    /// Show the guest a hidden path of the host below --rootfs. Repeatable.
    ///
    /// This also shows another file system, for example /home. Everything in the path is shown,
    /// except file systems below it. The guest has its own /proc, /sys, /dev, /run and /tmp: those
    /// of the host cannot be shown.
    #[arg(long, value_name = "PATH", requires = "rootfs")]
    pub(crate) show: Vec<PathBuf>,
    /// Hide one more path of the host below --rootfs. Repeatable.
    ///
    /// The path looks empty to the guest.
    #[arg(long, value_name = "PATH", requires = "rootfs")]
    pub(crate) hide: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) hardware: HardwareArgs,
    /// The network of the guest besides the service.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Net::None)]
    pub(crate) net: Net,
    /// Publish a port of the guest on the host, with --net user. Repeatable.
    ///
    /// The form is [ADDR:]PORT:GUEST_PORT[/udp]. Without an address, only this host can connect.
    #[arg(long, value_name = "SPEC")]
    pub(crate) publish: Vec<String>,
    /// How long the machine may take to boot [default: 60s, images: 5m].
    ///
    /// The time ends when the guest fetches its command.
    #[arg(long, value_name = "DURATION")]
    pub(crate) boot_timeout: Option<String>,
    /// Always boot; neither use nor create a snapshot.
    ///
    /// See "metaservice image snapshot --help".
    #[arg(long, alias = "no-warm", env = "METASERVICE_NO_SNAPSHOT", hide_env_values = true)]
    #[arg(value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) no_snapshot: bool,
    /// The variable of --no-snapshot before it was renamed.
    #[arg(long, hide = true, id = "old_no_snapshot", env = "METASERVICE_NO_WARM")]
    #[arg(value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) old_no_snapshot: bool,
    /// Write all network frames between guest and service to a capture file.
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
    /// Write the console of the machine to a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) console: Option<PathBuf>,
    /// Boot this kernel. With --image, "builtin" is the built-in kernel.
    ///
    /// A kernel with --image runs the command on the root file system of the image.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Boot with this initial RAM disk instead of the built-in one.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,
    /// Boot the built-in kernel at random addresses, without a snapshot.
    ///
    /// Otherwise the kernel has fixed addresses. The boot takes twice as long under emulation,
    /// because the kernel extracts itself. For an image that boots by itself, its boot loader
    /// decides.
    #[arg(long)]
    pub(crate) kaslr: bool,
}

impl VmArgs {
    /// Whether the machine may be restored from a snapshot, or saved as one.
    pub(crate) const fn snapshots(&self) -> bool {
        !self.no_snapshot && !self.old_no_snapshot && !self.kaslr
    }
}

/// The hardware of a machine.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = MACHINE)]
pub(crate) struct HardwareArgs {
    /// The number of processors.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = numbers::processors)]
    pub(crate) cpus: u32,
    /// The size of the memory: 512M, 1.5G; at least 96M.
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub(crate) memory: String,
    /// How the processors of the machine are executed.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Accel::Auto)]
    pub(crate) accel: Accel,
}

/// What a dry run prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// What the machine would be made of, in words.
    Text,
    /// The description of the job, for --spec.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// KVM if it works, else software emulation.
    Auto,
    /// The virtualization of the host's processor.
    Kvm,
    /// Software emulation.
    Tcg,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Net {
    /// Only the service.
    None,
    /// A second card: the network of the host, by QEMU's user network.
    User,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn each_verb_is_in_one_group_of_the_help() {
        let cli = Cli::command();
        let verbs: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|group| group.1).copied().collect();
        assert_eq!(grouped.len(), verbs.len());
        assert_eq!(grouped.into_iter().collect::<BTreeSet<_>>(), verbs.into_iter().collect());
    }

    #[test]
    fn renamed_options_have_their_old_names_too() {
        for (old, new) in [("--bound=stall=1m", "--limit=stall=1m"), ("--no-warm", "--no-snapshot")]
        {
            let parse = |option| {
                let cli =
                    Cli::try_parse_from(["metaservice", "run", option, "--", "true"]).unwrap();
                format!("{cli:?}")
            };
            assert_eq!(parse(old), parse(new));
            assert_ne!(parse(old), parse("--quiet"));
        }
    }
}
