//! The program: picks which of its parts it is, and turns errors into words.

#![forbid(unsafe_code)]

mod arguments;

use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use metaservice_guest::{Config, Settings, diagnostics};

use arguments::{Arguments, HELP};

/// How many threads may wait for disks: more than there are walks, reads and writes at once, so
/// that files, which need one for a block at a time, always find one. Idle ones go.
const BLOCKING_THREADS: usize = 48;

/// How long a blocking thread without work is kept.
const BLOCKING_IDLE: Duration = Duration::from_secs(2);

/// The exit status for a command line that cannot be understood.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    // The kernel hands words that it does not know to its first process, so a machine's init
    // is known by its name as well.
    let init = arguments.next().is_some_and(|name| name == "/init") || arguments.len() == 0;
    if std::process::id() == 1 && init {
        metaservice_guest::init();
    }
    match arguments::parse(std::env::args_os().skip(1)) {
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "error: {}\n\nFor more information, try '--help'.",
                diagnostics::chain(&error)
            );
            ExitCode::from(USAGE)
        }
        Ok(arguments) => match carry_out(arguments) {
            Ok(status) => status,
            Err(error) => {
                let _ = writeln!(io::stderr(), "error: {}", diagnostics::chain(&*error));
                ExitCode::FAILURE
            }
        },
    }
}

fn carry_out(arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match arguments {
        Arguments::Help => io::stdout().write_all(HELP.as_bytes())?,
        Arguments::Version => {
            writeln!(io::stdout(), "metaservice-guest {}", env!("CARGO_PKG_VERSION"))?;
        }
        Arguments::Run { host, config, state, again, stay, farewell } => {
            // Started by way of /proc/self/exe it would be known as `exe`.
            let _ = rustix::thread::set_name(c"metaservice");
            let config = config.map(|path| Config::read(&path)).transpose()?;
            let config = config.unwrap_or_default();
            let settings = Settings { host, config, state, again, stay, farewell };
            block_on(metaservice_guest::run(settings))?;
        }
        Arguments::PostLog { host, state, file } => {
            block_on(async move { metaservice_guest::post_log(host, state, &file).await })?;
        }
        Arguments::Supervise(order) => metaservice_guest::supervise(&order)?,
        Arguments::Zygote(agent) => metaservice_guest::zygote(agent)?,
    }
    Ok(ExitCode::SUCCESS)
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
    // As a task: the runtime's first future is woken by way of the kernel, each time.
    let result = runtime.block_on(runtime.spawn(work));
    // A read of a terminal or of a dead network disk is not waited for.
    runtime.shutdown_background();
    Ok(result??)
}
