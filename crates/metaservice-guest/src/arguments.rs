//! The command line.
//!
//! Owns the flags and the help text. What they do is the task of `main`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::host::{Host, InvalidHost};
use crate::supervise::{InvalidOrder, Order};

/// The output of `--help`.
pub(crate) const HELP: &str = "\
The agent inside a virtual machine: runs the job of its metadata service.

Usage: metaservice-guest [OPTIONS] [run]
       metaservice-guest [OPTIONS] post-log FILE

Commands:
  run              fetch the job, run it, report its result, serve the host's
                   actions (default)
  post-log FILE    send a file as an additional log; - is the standard input

Options:
      --host HOST[:PORT]      where the service is [default: 169.254.169.254:80]:
                              an address, or a name in /etc/hosts
      --config FILE           a YAML file with entrypoint, env, shell, user, workdir
      --state DIR             where a job's state survives a restart of the agent
                              [default: /run/metaservice for root]
      --again                 run the job even if it was started or reported before
      --host-timeout SECONDS  how long the host may be silent after the result
                              before the agent ends [default: 60]
  -h, --help                  print this help
  -V, --version               print the version

As process 1 without arguments, it is the init of the machine.
";

/// What to do.
#[derive(Debug)]
pub(crate) enum Arguments {
    Help,
    Version,
    Run {
        host: Host,
        config: Option<PathBuf>,
        state: Option<PathBuf>,
        again: bool,
        stay: bool,
        host_timeout: Option<Duration>,
    },
    PostLog {
        host: Host,
        state: Option<PathBuf>,
        file: PathBuf,
    },
    Supervise(Order),
    /// The fork server of the agent with this process id.
    ForkServer(i32),
}

/// Why a command line is not valid.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error(transparent)]
    Syntax(#[from] lexopt::Error),
    #[error(transparent)]
    Host(#[from] InvalidHost),
    #[error(transparent)]
    Order(#[from] InvalidOrder),
    #[error("post-log needs a FILE (- is the standard input)")]
    NoFile,
    #[error("there is no command '{0}': there are run and post-log")]
    NoSuchCommand(String),
    #[error("{option} cannot be used with post-log")]
    NotForPostLog { option: &'static str },
}

/// Reads a command line without the program's name.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Arguments, UsageError> {
    use lexopt::prelude::{Long, Short, Value, ValueExt};
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut host, mut config, mut state) = (Host::default(), None, None);
    let (mut again, mut stay, mut host_timeout) = (false, false, None);
    let mut words: Vec<OsString> = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Arguments::Help),
            Short('V') | Long("version") => return Ok(Arguments::Version),
            Long("host") => host = Host::parse(&parser.value()?.string()?)?,
            Long("config") => config = Some(parser.value()?.into()),
            Long("state") => state = Some(parser.value()?.into()),
            Long("again") => again = true,
            Long("host-timeout") => {
                host_timeout = Some(Duration::from_secs(parser.value()?.parse()?));
            }
            // Set by the init: its agent serves actions until the machine ends.
            Long("stay") => stay = true,
            Value(command) if words.is_empty() && command == "supervise" => {
                return Ok(Arguments::Supervise(Order::parse(&mut parser)?));
            }
            Value(command) if words.is_empty() && command == "fork-server" => {
                return Ok(Arguments::ForkServer(parser.value()?.parse()?));
            }
            Value(word) if words.len() < 2 => words.push(word),
            _ => return Err(argument.unexpected().into()),
        }
    }
    let mut words = words.into_iter();
    match (words.next(), words.next()) {
        (None, None) => {}
        (Some(command), None) if command == "run" => {}
        (Some(command), file) if command == "post-log" => {
            let file = file.ok_or(UsageError::NoFile)?.into();
            let option = if config.is_some() {
                "--config"
            } else if again {
                "--again"
            } else {
                return Ok(Arguments::PostLog { host, state, file });
            };
            return Err(UsageError::NotForPostLog { option });
        }
        (Some(command), word) => {
            let surplus = if command == "run" { word.unwrap_or(command) } else { command };
            return Err(UsageError::NoSuchCommand(surplus.to_string_lossy().into_owned()));
        }
        (None, Some(_)) => return Err(UsageError::NoFile),
    }
    Ok(Arguments::Run { host, config, state, again, stay, host_timeout })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Arguments, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn run_is_the_default() {
        for line in ["", "run"] {
            let Ok(Arguments::Run { host, config, state, again, stay, host_timeout }) =
                parse_line(line)
            else {
                panic!("{line}")
            };
            assert_eq!((host, again, stay), (Host::default(), false, false));
            assert_eq!((config, state, host_timeout), (None, None, None));
        }
        let line = "--host 127.0.0.1:8080 --config c.yml run --state=s --again --host-timeout 7";
        let Ok(Arguments::Run { host, config, state, again: true, host_timeout, .. }) =
            parse_line(line)
        else {
            panic!()
        };
        assert_eq!(host_timeout, Some(Duration::from_secs(7)));
        assert_eq!(host.authority(), "127.0.0.1:8080");
        assert_eq!((config, state), (Some("c.yml".into()), Some("s".into())));
    }

    #[test]
    fn post_log_takes_a_file() {
        let Ok(Arguments::PostLog { file, .. }) = parse_line("post-log --host 10.0.0.1 -") else {
            panic!()
        };
        assert_eq!(file, PathBuf::from("-"));
        assert!(parse_line("post-log").unwrap_err().contains("needs a FILE"));
        assert!(parse_line("post-log a --again").unwrap_err().contains("--again"));
    }

    #[test]
    fn errors_name_the_mistake() {
        assert!(parse_line("walk").unwrap_err().contains("'walk'"));
        assert!(parse_line("run fast").unwrap_err().contains("'fast'"));
        assert!(parse_line("--hots a").unwrap_err().contains("--hots"));
        assert!(parse_line("--host a:b").unwrap_err().contains("HOST[:PORT]"));
        assert!(parse_line("supervise").is_err());
        assert!(parse_line("fork-server").is_err());
        assert!(matches!(parse_line("--help"), Ok(Arguments::Help)));
        assert!(matches!(parse_line("-V"), Ok(Arguments::Version)));
    }
}
