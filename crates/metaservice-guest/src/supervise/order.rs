//! An agent's order to start a supervisor: as a command line, or as the same words in a message to
//! the [fork server](mod@super::fork_server).
//!
//! The command line is this program's own. The command and the environment of the job are passed as
//! its command and environment. So if the kernel cannot pass them to the job, for example because
//! they are too long, that fails before anything has started, and no file is needed.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use metaservice_protocol::TerminalSize;

use crate::program::{Program, remove_unit_variables};
use crate::state::StateDirectory;
use crate::system::oom;

/// This program, even if its file was replaced or the root was changed.
pub(super) const SELF: &str = "/proc/self/exe";

/// The name of this program in `ps`.
pub(super) const NAME: &str = "metaservice-guest";

/// Variables of an environment.
pub(super) type Environment = Vec<(OsString, OsString)>;

/// What is supervised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The job's command. It outlives its agent. When it ends, its whole process tree is killed.
    Job,
    /// A shell. It dies with its agent. When it ends by itself, its background processes stay.
    Shell,
}

/// Where the log of a job goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogRoute {
    /// The service, as in the `Host` header.
    pub(crate) host: String,
    /// Whether the service takes numbered log requests.
    pub(crate) numbered: bool,
}

/// An order to start a supervisor with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// The state directory of the command.
    pub(crate) state: PathBuf,
    pub(crate) kind: Kind,
    /// Whether the command's standard streams are a terminal that it controls.
    pub(crate) tty: bool,
    /// The size of the terminal that the supervisor creates for a job.
    pub(crate) terminal: Option<TerminalSize>,
    /// Whether the host feeds the standard input of a job.
    pub(crate) stdin: bool,
    /// Whether stdout and stderr of a job are two logs.
    pub(crate) separate: bool,
    /// Where the log of a job goes.
    pub(crate) log: Option<LogRoute>,
    /// The user that the command runs as.
    pub(crate) user: Option<OsString>,
    /// Where the command runs.
    pub(crate) workdir: Option<PathBuf>,
    /// The command's `oom_score_adj`, if it is not the supervisor's.
    pub(crate) oom_score: Option<i32>,
    /// Whether the supervisor reports that the command was started, or why not.
    pub(crate) reports_start: bool,
    /// The process id of the agent.
    pub(crate) agent: i32,
    /// The command's words.
    pub(crate) command: Vec<OsString>,
}

/// A command line that is not an order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidOrder {
    #[error(transparent)]
    Arguments(#[from] lexopt::Error),
    #[error("this command is internal to the agent")]
    Incomplete,
}

impl Order {
    /// This agent's order to run `program` with this state directory.
    pub(crate) fn new(state: &StateDirectory, kind: Kind, tty: bool, program: &Program) -> Self {
        Self {
            state: state.path().to_owned(),
            kind,
            tty,
            terminal: None,
            stdin: false,
            separate: false,
            log: None,
            user: program.user.as_ref().map(Into::into),
            workdir: program.workdir.clone(),
            reports_start: false,
            oom_score: oom::score_of_commands(),
            agent: rustix::process::getpid().as_raw_pid(),
            command: program.words.iter().map(Into::into).collect(),
        }
    }

    /// The order as the arguments after `supervise`.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let mut option = |name: &str, value: &OsStr| {
            arguments.extend([name.into(), value.to_owned()]);
        };
        option("--state", self.state.as_os_str());
        option("--agent", self.agent.to_string().as_ref());
        option("--kind", if self.kind == Kind::Job { "job" } else { "shell" }.as_ref());
        if let Some(LogRoute { host, numbered }) = &self.log {
            option(if *numbered { "--log" } else { "--plain-log" }, host.as_ref());
        }
        if let Some(user) = &self.user {
            option("--user", user);
        }
        if let Some(workdir) = &self.workdir {
            option("--workdir", workdir.as_os_str());
        }
        if let Some(TerminalSize { columns, rows }) = self.terminal {
            option("--terminal", format!("{columns}x{rows}").as_ref());
        }
        if let Some(score) = self.oom_score {
            // In one word with its name: a negative number would be an option.
            arguments.push(format!("--oom-score={score}").into());
        }
        if self.tty {
            arguments.push("--tty".into());
        }
        if self.stdin {
            arguments.push("--stdin".into());
        }
        if self.separate {
            arguments.push("--separate".into());
        }
        if self.reports_start {
            arguments.push("--reports-start".into());
        }
        arguments.push("--".into());
        arguments.extend(self.command.iter().cloned());
        arguments
    }

    /// Reads the arguments after `supervise`.
    ///
    /// # Errors
    /// For any arguments that [`arguments`](Self::arguments) does not produce.
    pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<Self, InvalidOrder> {
        use lexopt::prelude::{Long, Value, ValueExt};
        let mut order = Self {
            state: PathBuf::new(),
            kind: Kind::Job,
            tty: false,
            terminal: None,
            stdin: false,
            separate: false,
            log: None,
            user: None,
            workdir: None,
            reports_start: false,
            oom_score: None,
            agent: 0,
            command: Vec::new(),
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Long("state") => order.state = parser.value()?.into(),
                Long("agent") => order.agent = parser.value()?.parse()?,
                Long("kind") => {
                    let job = parser.value()? == "job";
                    order.kind = if job { Kind::Job } else { Kind::Shell };
                }
                Long(name @ ("log" | "plain-log")) => {
                    let numbered = name == "log";
                    let host = parser.value()?.string()?;
                    order.log = Some(LogRoute { host, numbered });
                }
                Long("user") => order.user = Some(parser.value()?),
                Long("workdir") => order.workdir = Some(parser.value()?.into()),
                Long("oom-score") => order.oom_score = Some(parser.value()?.parse()?),
                Long("tty") => order.tty = true,
                Long("stdin") => order.stdin = true,
                Long("separate") => order.separate = true,
                Long("reports-start") => order.reports_start = true,
                Long("terminal") => {
                    let size = parser.value()?.string()?;
                    let (columns, rows) = size.split_once('x').ok_or(InvalidOrder::Incomplete)?;
                    let number = |text: &str| text.parse().map_err(|_| InvalidOrder::Incomplete);
                    let (columns, rows) = (number(columns)?, number(rows)?);
                    order.terminal = Some(TerminalSize { columns, rows });
                }
                Value(first) => {
                    order.command.push(first);
                    order.command.extend(parser.raw_args()?);
                }
                _ => return Err(argument.unexpected().into()),
            }
        }
        let complete = order.agent > 0 && order.state != Path::new("");
        if complete { Ok(order) } else { Err(InvalidOrder::Incomplete) }
    }
}

/// The command that starts a supervisor as a program. `env` is the environment of its command.
pub(crate) fn supervisor_command(order: &Order, env: &[(String, String)]) -> Command {
    let mut command = Command::new(SELF);
    command.arg0(NAME).arg("supervise").args(order.arguments());
    remove_unit_variables(&mut command).envs(env.iter().map(|(name, value)| (name, value)));
    command
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parse_inverts_arguments(
            state in "/[^\0]{0,8}",
            shell in any::<bool>(),
            tty in any::<bool>(),
            stdin in any::<bool>(),
            separate in any::<bool>(),
            terminal in proptest::option::of((any::<u16>(), any::<u16>())),
            log in proptest::option::of(("[^\0]{0,8}", any::<bool>())),
            user in proptest::option::of("[^\0]{1,8}"),
            workdir in proptest::option::of("/[^\0]{0,8}"),
            oom_score in proptest::option::of(-1000i32..=1000),
            reports_start in any::<bool>(),
            agent in 1i32..,
            command in proptest::collection::vec("[^\0]{0,8}", 0..4),
        ) {
            let order = Order {
                state: state.into(),
                kind: if shell { Kind::Shell } else { Kind::Job },
                tty,
                stdin,
                separate,
                terminal: terminal.map(|(columns, rows)| TerminalSize { columns, rows }),
                log: log.map(|(host, numbered)| LogRoute { host, numbered }),
                user: user.map(Into::into),
                workdir: workdir.map(Into::into),
                reports_start,
                oom_score,
                agent,
                command: command.into_iter().map(Into::into).collect(),
            };
            let line = order.arguments();
            let mut parser = lexopt::Parser::from_args(line);
            prop_assert_eq!(Order::parse(&mut parser).unwrap(), order);
        }
    }

    #[test]
    fn an_incomplete_order_is_an_error() {
        for line in [&["--state", "/a"][..], &["--agent", "4"], &[], &["--what"]] {
            assert!(Order::parse(&mut lexopt::Parser::from_args(line)).is_err(), "{line:?}");
        }
    }
}
