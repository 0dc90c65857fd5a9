//! The agent inside the virtual machine.
//!
//! It fetches one job from the metadata service, runs it, delivers its output and reports its
//! result. Meanwhile it serves the host's actions: files, lists of files, shells, a kill. As the
//! first process of a machine it is the init as well. The protocol is version 1 of
//! `docs/protocol.md`.
//!
//! # Four programs in one
//!
//! This static file is four programs, each in a process of its own:
//!
//! - [`init`]: pid 1. It lives as long as the machine. If it ends, the kernel panics, so it does as
//!   little as possible.
//! - [`agent`]: the agent. It lives as long as a host may send actions. It reads the network, so it
//!   may crash, and is restarted.
//! - [`supervise`]: one for the job and one for each shell. It lives as long as the processes of
//!   the command. It outlives the agent, and adopts processes whose parent has ended.
//! - The fork server: one for an agent that has had a shell. It lives as long as the agent. It
//!   forks the supervisors of shells, which is faster than to start a program.
//!
//! A command starts as a forked child of its supervisor, which has one thread and so may fork. The
//! agent and a supervisor share only a state directory and a signal. The agent and the fork server
//! share a socket.
//!
//! # Modules
//!
//! A module uses only modules above it:
//!
//! | module | task |
//! | --- | --- |
//! | `backoff`, `diagnostics` | delays; lines for people |
//! | `system` | what the agent asks of the kernel and of `/etc/passwd` |
//! | `config`, `program` | the image's settings; a command with its environment |
//! | `client` | the client side of the protocol |
//! | `state` | the directory in which a job outlives its agent |
//! | `log` | the delivery of a job's output |
//! | `supervise` | the process above a command |
//! | `volumes` | directories of the host that are mounted for the job |
//! | `job` | the job from its claim to its result |
//! | `shell`, `files` | exec; files and lists |
//! | `actions` | polls, and which module serves which action |
//! | `agent`, `init` | the composition of an agent; pid 1 |

#![deny(unsafe_code)]

mod actions;
mod agent;
mod arguments;
mod backoff;
mod client;
mod config;
mod diagnostics;
mod files;
mod init;
mod job;
mod log;
mod program;
mod shell;
mod state;
mod supervise;
mod system;
mod volumes;

use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use self::agent::Settings;
use self::arguments::{Arguments, HELP};
use self::config::Config;
use self::diagnostics::with_causes;

/// How many threads may block. There are more than walks, reads and writes at once, so that a file,
/// which needs a thread for one block, always finds one. Unused threads end.
const BLOCKING_THREADS: usize = 48;

/// How long an unused blocking thread is kept.
const BLOCKING_IDLE: Duration = Duration::from_secs(2);

/// The exit status for an invalid command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    // The kernel passes words that it does not know to its first process. So an init is recognised
    // by its name as well.
    let init = arguments.next().is_some_and(|name| name == "/init") || arguments.len() == 0;
    if std::process::id() == 1 && init {
        self::init::init();
    }
    match arguments::parse(std::env::args_os().skip(1)) {
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "error: {}\n\nFor more information, try '--help'.",
                with_causes(&error)
            );
            ExitCode::from(USAGE)
        }
        Ok(arguments) => match run(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(io::stderr(), "error: {}", with_causes(&*error));
                ExitCode::FAILURE
            }
        },
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    match arguments {
        Arguments::Help => io::stdout().write_all(HELP.as_bytes())?,
        Arguments::Version => {
            writeln!(io::stdout(), "metaservice-guest {}", env!("CARGO_PKG_VERSION"))?;
        }
        Arguments::Run { host, config, state, again, stay, host_timeout } => {
            // Started as /proc/self/exe, its name would be `exe`.
            let _ = rustix::thread::set_name(c"metaservice");
            let config = config.map(|path| Config::read(&path)).transpose()?;
            let config = config.unwrap_or_default();
            let settings = Settings { host, config, state, again, stay, host_timeout };
            block_on(agent::run(settings))?;
        }
        Arguments::PostLog { host, state, file } => {
            block_on(async move { log::post::post_log(host, state, &file).await })?;
        }
        Arguments::Supervise(order) => supervise::supervise(&order)?,
        Arguments::ForkServer(agent) => supervise::fork_server(agent)?,
    }
    Ok(())
}

fn block_on<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, Box<dyn std::error::Error>>
where
    T: Send + 'static,
    E: std::error::Error + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_IDLE)
        .build()?;
    // Spawned, because each wake-up of the main future of a runtime goes through the kernel.
    let result = runtime.block_on(runtime.spawn(work));
    // Does not wait for a thread that reads a terminal or a dead network disk.
    runtime.shutdown_background();
    Ok(result??)
}
