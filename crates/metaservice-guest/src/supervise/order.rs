//! What an agent tells the supervisor: as a command line, or as the same words in a message to the
//! [zygote](super::fork_server).
//!
//! As a command line it is this program again. Command and environment of the job travel as its own command
//! and environment, so that whatever the kernel could not carry to the job fails before
//! anything has begun, and nothing has to be written down for it.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use metaservice_protocol::TerminalSize;

use crate::program::Program;
use crate::state::Folder;
use crate::system::oom;

/// This program, also after its file was replaced or a new root entered.
pub(super) const SELF: &str = "/proc/self/exe";

/// What is supervised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The job's command: outlives its agent, and takes its whole tree with it when it ends.
    Job,
    /// A shell: dies with its agent, and leaves what it put in the background when it ends
    /// by itself.
    Shell,
}

/// The way of a job's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRoute {
    /// The service, as its `Host` header names it.
    pub host: String,
    /// Whether the service takes numbered log requests.
    pub numbered: bool,
}

/// One order to a supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The state folder.
    pub folder: PathBuf,
    /// What is supervised.
    pub kind: Kind,
    /// Whether the command's standard streams are a terminal that it is to control.
    pub tty: bool,
    /// The terminal that the supervisor makes for a job.
    pub terminal: Option<TerminalSize>,
    /// Where a job's log goes.
    pub log: Option<LogRoute>,
    /// Whom to run it as.
    pub user: Option<OsString>,
    /// Where to run it.
    pub workdir: Option<PathBuf>,
    /// The command's `oom_score_adj`, where the supervisor's is another one.
    pub oom_score: Option<i32>,
    /// Whether somebody waits for the command's start, to say it or why it failed.
    pub awaited: bool,
    /// The agent that has given the order.
    pub agent: i32,
    /// The command.
    pub command: Vec<OsString>,
}

/// A command line that is no order.
#[derive(Debug, thiserror::Error)]
pub enum InvalidOrder {
    /// It cannot be parsed.
    #[error(transparent)]
    Arguments(#[from] lexopt::Error),
    /// It says too little.
    #[error("this is for the agent's own use")]
    Incomplete,
}

impl Order {
    /// The agent's order to supervise `program`.
    pub(crate) fn new(folder: &Folder, kind: Kind, tty: bool, program: &Program) -> Self {
        Self {
            folder: folder.path().to_owned(),
            kind,
            tty,
            terminal: None,
            log: None,
            user: program.user.as_ref().map(Into::into),
            workdir: program.workdir.clone(),
            awaited: false,
            oom_score: oom::score_of_commands(),
            agent: rustix::process::getpid().as_raw_pid(),
            command: program.words.iter().map(Into::into).collect(),
        }
    }

    /// This program as a supervisor, with this order.
    pub(crate) fn as_command(&self) -> Command {
        let mut command = Command::new(SELF);
        // What `ps` shows.
        command.arg0("metaservice-guest").arg("supervise").args(self.arguments());
        command
    }

    /// This order as what follows `supervise` on a command line.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let mut option = |name: &str, value: &OsStr| {
            arguments.extend([name.into(), value.to_owned()]);
        };
        option("--folder", self.folder.as_os_str());
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
            // With the name: a negative number is no option.
            arguments.push(format!("--oom-score={score}").into());
        }
        if self.tty {
            arguments.push("--tty".into());
        }
        if self.awaited {
            arguments.push("--awaited".into());
        }
        arguments.push("--".into());
        arguments.extend(self.command.iter().cloned());
        arguments
    }

    /// Reads the arguments behind `supervise`.
    ///
    /// # Errors
    /// [`InvalidOrder`] for anything else.
    pub fn parse(parser: &mut lexopt::Parser) -> Result<Self, InvalidOrder> {
        use lexopt::prelude::{Long, Value, ValueExt};
        let mut order = Self {
            folder: PathBuf::new(),
            kind: Kind::Job,
            tty: false,
            terminal: None,
            log: None,
            user: None,
            workdir: None,
            awaited: false,
            oom_score: None,
            agent: 0,
            command: Vec::new(),
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Long("folder") => order.folder = parser.value()?.into(),
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
                Long("awaited") => order.awaited = true,
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
        let complete = order.agent > 0 && order.folder != Path::new("");
        if complete { Ok(order) } else { Err(InvalidOrder::Incomplete) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parse_inverts_as_command(
            folder in "/[^\0]{0,8}",
            shell in any::<bool>(),
            tty in any::<bool>(),
            terminal in proptest::option::of((any::<u16>(), any::<u16>())),
            log in proptest::option::of(("[^\0]{0,8}", any::<bool>())),
            user in proptest::option::of("[^\0]{1,8}"),
            workdir in proptest::option::of("/[^\0]{0,8}"),
            oom_score in proptest::option::of(-1000i32..=1000),
            awaited in any::<bool>(),
            agent in 1i32..,
            command in proptest::collection::vec("[^\0]{0,8}", 0..4),
        ) {
            let order = Order {
                folder: folder.into(),
                kind: if shell { Kind::Shell } else { Kind::Job },
                tty,
                terminal: terminal.map(|(columns, rows)| TerminalSize { columns, rows }),
                log: log.map(|(host, numbered)| LogRoute { host, numbered }),
                user: user.map(Into::into),
                workdir: workdir.map(Into::into),
                awaited,
                oom_score,
                agent,
                command: command.into_iter().map(Into::into).collect(),
            };
            let line = order.as_command();
            let mut parser = lexopt::Parser::from_args(line.get_args().skip(1));
            prop_assert_eq!(Order::parse(&mut parser).unwrap(), order);
        }
    }

    #[test]
    fn half_an_order_is_none() {
        for line in [&["--folder", "/a"][..], &["--agent", "4"], &[], &["--what"]] {
            assert!(Order::parse(&mut lexopt::Parser::from_args(line)).is_err(), "{line:?}");
        }
    }
}
