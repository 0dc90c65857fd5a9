//! The command line as it is written: words and flags, nothing resolved yet.

mod image;
pub(crate) mod numbers;
mod verbs;

use std::collections::BTreeMap;
use std::path::PathBuf;

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

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const AFTER_HELP: &str = "\
Exit status of run and serve:
  the command's own, 124 on --timeout, 125 when metaservice itself failed,
  126 when the command cannot be run, 127 when it is not found, 128+N after signal N.";

const COMPLETIONS_HELP: &str = "\
Examples:
  echo 'source <(metaservice completions bash)' >> ~/.bashrc
  echo 'source <(metaservice completions zsh)' >> ~/.zshrc
  metaservice completions fish > ~/.config/fish/completions/metaservice.fish";

/// Run a command inside a virtual machine.
#[derive(Debug, Parser)]
#[command(name = "metaservice", version, styles = STYLES, after_help = AFTER_HELP)]
#[command(propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Say what happens as lines of JSON on stderr.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Boot a virtual machine, run a command in it, and exit with its status.
    #[command(after_help = AFTER_HELP)]
    Run(RunArgs),
    /// Serve a job to a virtual machine that somebody else starts.
    #[command(after_help = AFTER_HELP)]
    Serve(ServeArgs),
    /// List the jobs that run; with -q, only their names.
    #[command(after_help = verbs::PS_HELP)]
    Ps,
    /// Show all that is known of a job, as JSON.
    #[command(after_help = verbs::INSPECT_HELP)]
    Inspect(JobName),
    /// Wait until a job ends, print its status and exit with it.
    #[command(after_help = verbs::WAIT_HELP)]
    Wait(JobName),
    /// Show what a job has logged.
    #[command(after_help = verbs::LOGS_HELP)]
    Logs(LogsArgs),
    /// Run a command beside the job's own.
    #[command(after_help = verbs::EXEC_HELP)]
    Exec(ExecArgs),
    /// Open a shell beside the job's command, in this terminal.
    #[command(after_help = verbs::SHELL_HELP)]
    Shell(ShellArgs),
    /// List a directory of the guest's.
    #[command(after_help = verbs::LS_HELP, disable_help_flag = true)]
    Ls(LsArgs),
    /// Copy files and folders between a guest and here.
    #[command(after_help = verbs::CP_HELP)]
    Cp(CpArgs),
    /// Kill the job's command and everything under it, or send it a signal.
    #[command(after_help = verbs::KILL_HELP)]
    Kill(KillArgs),
    /// Show what a guest is doing: processors, memory, disk, network.
    #[command(after_help = verbs::STATS_HELP)]
    Stats(StatsArgs),
    /// Forward TCP ports of ours to ports in a guest.
    #[command(after_help = verbs::FORWARD_HELP)]
    Forward(ForwardArgs),
    /// Keep disk images, and what machines start from faster.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Show what is there, what is missing, and what to type.
    Doctor(DoctorArgs),
    /// Print a completion script for a shell; it completes the names of jobs too.
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Show the help of a verb.
    #[command(after_help = "Example:\n  metaservice help run")]
    Help {
        /// The verb.
        #[arg(value_name = "VERB")]
        verb: Vec<String>,
    },
    /// Write the manual pages.
    #[command(after_help = "Example:\n  metaservice man ~/.local/share/man/man1")]
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Give the command a terminal of our terminal's size; what it shows is the log.
    #[arg(short, long)]
    pub(crate) tty: bool,
    #[command(flatten)]
    pub(crate) vm: VmArgs,
    #[command(flatten)]
    pub(crate) cloud: CloudArgs,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where the guest reaches the service: IP:PORT, unix:PATH or vsock:PORT.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: String,
    /// A domain name by which the guest knows the service. Requests to others are refused;
    /// addresses and names without a dot need not be told.
    #[arg(long, value_name = "NAME")]
    pub(crate) host_name: Vec<String>,
    /// Keep what the guest has been promised, and the log, in this folder. A service that is
    /// started again by the same command line, after whatever end, goes on with the job. The
    /// directory is made, or is empty, and only its user can write it.
    #[arg(long, value_name = "DIR", conflicts_with = "log")]
    pub(crate) state: Option<PathBuf>,
    /// Answer a stock cloud image's cloud-init too, and hand out the agent. The machine has to
    /// have the UUID that is told, and its text as serial number, or any other that begins with ec2.
    #[arg(long)]
    pub(crate) cloud: bool,
    /// How long to wait until the guest fetches its command; without it, there is no limit.
    /// --timeout begins only then.
    #[arg(long, value_name = "DURATION")]
    pub(crate) boot_timeout: Option<String>,
    /// A network card of the machine's, the one to the service first: what the image is to set up
    /// by DHCP. Without any it sets up its first card.
    #[arg(long, value_name = "MAC", requires = "cloud")]
    pub(crate) mac: Vec<String>,
    #[command(flatten)]
    pub(crate) image: CloudArgs,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Install what is missing (Debian and Ubuntu).
    #[arg(long)]
    pub(crate) install: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Job options")]
pub(crate) struct JobArgs {
    /// A name for the job; it is also the built-in guest's host name.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Set a variable of the command's environment; without =VALUE, hand on our own.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Read variables from a file of NAME=VALUE lines, as docker does: a quote is part of the value;
    /// --env wins over it.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Fetch a file when the command has ended, whether it succeeded or not. A colon in
    /// GUEST_PATH is written "\:".
    #[arg(long, value_name = "GUEST_PATH[:DEST]")]
    pub(crate) artifact: Vec<String>,
    /// Kill the command after this time: 90, 90s, 5m, 1h 30m.
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
    /// Write the log to a file too. As for --artifact, --console, --pcap and cp: a link to a file
    /// is replaced, and one to a device, a pipe or /dev/stdout gets the bytes.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Give the command a variable of ours that only its agent can ask for, and once: the value
    /// is not in any argument, and no other process of the guest gets it from the service.
    #[arg(long, value_name = "NAME")]
    pub(crate) secret: Vec<String>,
    /// The values of those that were taken out of the environment.
    #[arg(skip)]
    pub(crate) withdrawn: BTreeMap<String, String>,
    /// Whether the guest's agent has to claim the job before it is served.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Session::Claimed)]
    pub(crate) session: Session,
    /// Kill the command when its log becomes larger.
    #[arg(long, value_name = "SIZE", default_value = "64G")]
    pub(crate) max_log: String,
    /// Refuse an artifact that is larger, and a file or folder that "cp" fetches.
    #[arg(long, value_name = "SIZE", default_value = "64G")]
    pub(crate) max_artifact: String,
    /// What the guest may take of this machine at most; may be given several times. The names:
    /// connections (1024 at once), headers (64 of a request), line (16K of its path), head (16K of
    /// its line and headers), head-time (30s for them), stall (30s without a byte of a reply, or in
    /// which nothing of an answer or a stream is taken), list (10M of a folder's listing), names (1000000 in
    /// it), streams (256 shells and such at once), storage (128G in temporary files), buffers
    /// (48M for all connections over the card of `run`), frames (1000000 a second from it), half-open
    /// (1024 incomplete TCP handshakes with it), farewell (1h for all artifacts once the command has ended), console (64M
    /// in the file of --console), pcap (16G in that of --pcap). --max-log and --max-artifact bound
    /// the log, and what "cp" and --artifact fetch.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) bound: Vec<String>,
    /// The command and its arguments; behind "--", whatever they look like.
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Cloud image options")]
pub(crate) struct CloudArgs {
    /// A key by which the image's user may log in: a file of public keys, or the key itself.
    #[arg(long, value_name = "FILE|KEY")]
    pub(crate) ssh_key: Vec<String>,
    /// User data for the image's cloud-init: a script, #cloud-config or whatever else it knows. It
    /// is through with them before the command begins. Everybody in the guest can read them.
    #[arg(long, value_name = "FILE")]
    pub(crate) user_data: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "VM options")]
pub(crate) struct VmArgs {
    /// Boot a disk image: one of "image ls" by its name or sha256:DIGEST, or a file; a stock cloud
    /// image, whose cloud-init fetches the agent, or one with an agent. It is never written: changes
    /// go to a throw-away overlay. A file of an image's name is written ./NAME.
    #[arg(long, value_name = "NAME|DISK", add = ArgValueCompleter::new(candidates::disks))]
    pub(crate) image: Option<PathBuf>,
    /// Use a directory of the host as root: read-only, under a throw-away overlay, which is in the
    /// guest's memory. The command starts in /. The guest has a /tmp of its own, which hides the
    /// host's. A guest under --rootfs / reads every file that you can read, and with --net user it
    /// can send them anywhere. Hidden are /proc, /sys, /dev, /run and /tmp of the host, other file
    /// systems in the directory, shadow files (su in the guest needs --show /etc/shadow), this tool's
    /// own state, and where credentials usually are: ~/.ssh, ~/.gnupg, ~/.aws, ~/.config/gcloud,
    /// ~/.kube, ~/.docker, ~/.netrc and the like. What the host changes, the guest sees.
    #[arg(long, value_name = "DIR", conflicts_with = "image")]
    pub(crate) rootfs: Option<PathBuf>,
    /// Show the guest a path of the host below --rootfs that is hidden unless you say so, or another
    /// file system, as /home may be one. What it contains is shown too, not file systems below it.
    /// The guest has its own /proc, /sys, /dev, /run and /tmp: the host's cannot be shown.
    #[arg(long, value_name = "PATH", requires = "rootfs")]
    pub(crate) show: Vec<PathBuf>,
    /// Hide one more path of the host below --rootfs: it looks empty to the guest.
    #[arg(long, value_name = "PATH", requires = "rootfs")]
    pub(crate) hide: Vec<PathBuf>,
    /// Boot this kernel; with --image, "builtin" boots our own kernel on the image's root.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Boot with this initial RAM disk instead of our own.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) hardware: HardwareArgs,
    /// Whether the machine sees the outside world, on a second card.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Net::None)]
    pub(crate) net: Net,
    /// Lead a port of ours to one of the guest's, with --net user: [ADDR:]PORT:GUEST_PORT[/udp].
    /// Without an address it is open to this machine alone.
    #[arg(long, value_name = "SPEC")]
    pub(crate) publish: Vec<String>,
    /// How long the machine may take until the guest fetches its command: 60s, or 5m if
    /// an image boots by itself.
    #[arg(long, value_name = "DURATION")]
    pub(crate) boot_timeout: Option<String>,
    /// Boot, even if a machine like this one was saved before it had a job, and save none after
    /// the run: see "image snapshot --help".
    #[arg(long, env = "METASERVICE_NO_WARM", hide_env_values = true)]
    #[arg(value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) no_warm: bool,
    /// Boot the built-in kernel at random addresses, without a snapshot. It has fixed ones otherwise,
    /// with --no-warm too: a kernel that extracts itself, as this needs, takes twice as long to boot
    /// under emulation. An image that boots by itself does as its own boot loader says.
    #[arg(long)]
    pub(crate) kaslr: bool,
    /// Write every frame between machine and service to a capture file.
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
    /// Write the machine's console to a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) console: Option<PathBuf>,
}

impl VmArgs {
    /// The built-in guest on this hardware, with nothing but it.
    pub(crate) const fn plain(hardware: HardwareArgs) -> Self {
        Self {
            image: None,
            rootfs: None,
            show: Vec::new(),
            hide: Vec::new(),
            kernel: None,
            initrd: None,
            hardware,
            net: Net::None,
            publish: Vec::new(),
            boot_timeout: None,
            no_warm: false,
            kaslr: false,
            pcap: None,
            console: None,
        }
    }
}

/// What a machine is made of, whatever it boots.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "VM options")]
pub(crate) struct HardwareArgs {
    /// How many processors the machine has.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = numbers::processors)]
    pub(crate) cpus: u32,
    /// How much memory the machine has: 512M, 1.5G; at least 96M, which the built-in guest needs.
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub(crate) memory: String,
    /// What runs the machine's processors.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Accel::Auto)]
    pub(crate) accel: Accel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// KVM where it works, else software emulation.
    Auto,
    /// The processor's own virtualization.
    Kvm,
    /// Software emulation.
    Tcg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Session {
    /// Nothing is served to an agent that has not claimed the job.
    Required,
    /// Whoever claims it is served alone; an agent of version 1 never claims, and works.
    Claimed,
    /// Whoever reaches the service is served.
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Net {
    /// Nothing but the service.
    None,
    /// The outside world by QEMU's user network.
    User,
}
