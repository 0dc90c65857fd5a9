//! What exactly is run: words, environment, user and folder of a job or a shell.
//!
//! Owns the order in which the layers of the environment lie over each other: the agent's
//! own, what the user brings (HOME, USER, LOGNAME), the configuration's, the job's.

use std::path::{Path, PathBuf};
use std::process::Command;

use metaservice_protocol::{Exec, Execute};

use crate::config::Config;
use crate::system::account::Account;

/// The terminal that a shell with a terminal is told it has, unless something else says so.
const TERMINAL: &str = "xterm-256color";

/// What a service manager says to a unit's own process alone: the agent (systemd.exec(5)). In a
/// command it would be false, and the same in each machine that was restored from one snapshot.
const OF_UNIT: [&str; 16] = [
    "CREDENTIALS_DIRECTORY",
    "FDSTORE",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LOG_NAMESPACE",
    "MAINPID",
    "MANAGERPID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "NOTIFY_SOCKET",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Where ncurses looks for terminal types, as distributions build it.
const TERMINFO: [&str; 4] =
    ["/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo", "/usr/lib/terminfo"];

/// A command with everything around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) words: Vec<String>,
    /// Laid over the agent's own environment; of two of the same name the later counts.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) user: Option<String>,
    pub(crate) workdir: Option<PathBuf>,
}

impl Program {
    /// The job's command. With an entrypoint an empty command is the entrypoint alone.
    pub(crate) fn job(config: &Config, execute: &Execute) -> Self {
        let words = config.entrypoint.iter().chain(&execute.command).cloned().collect();
        let term = execute.terminal.map(|_| TERMINAL);
        let mut program = Self::new(config, execute, words, term, config.user.as_ref());
        if execute.terminal.is_some() {
            program.know_terminal();
        }
        program
    }

    /// A shell beside the job: same environment, user and folder unless it says otherwise, no
    /// entrypoint.
    pub(crate) fn shell(config: &Config, execute: &Execute, exec: Exec) -> Self {
        let Exec { command: words, tty, options } = exec;
        let words = match (words.is_empty(), config.shell.is_empty()) {
            (false, _) => words,
            (true, false) => config.shell.clone(),
            (true, true) => vec![default_shell().to_owned()],
        };
        let user = options.user.as_ref().or(config.user.as_ref());
        let mut program = Self::new(config, execute, words, tty.then_some(TERMINAL), user);
        program.env.extend(options.env);
        if tty {
            program.know_terminal();
        }
        if let Some(workdir) = options.workdir {
            let base = program.workdir.take().unwrap_or_default();
            program.workdir = Some(base.join(workdir));
        }
        program
    }

    /// A terminal type that this guest does not know becomes one that most know: with an unknown
    /// one editors and pagers do not start.
    fn know_terminal(&mut self) {
        let value = |name: &str| {
            let mut values = self.env.iter().rev();
            values.find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        let term = value("TERM").unwrap_or(TERMINAL);
        let own = [
            value("TERMINFO").map(PathBuf::from),
            value("HOME").map(|home| Path::new(home).join(".terminfo")),
        ];
        let all = own.into_iter().flatten().chain(TERMINFO.map(PathBuf::from));
        if term != "dumb" && !is_known(term, all) {
            self.env.push(("TERM".to_owned(), TERMINAL.to_owned()));
        }
    }

    fn new(
        config: &Config,
        execute: &Execute,
        words: Vec<String>,
        term: Option<&str>,
        user: Option<&String>,
    ) -> Self {
        let mut env: Vec<(String, String)> = Vec::new();
        env.extend(term.map(|term| ("TERM".to_owned(), term.to_owned())));
        // A user who does not exist is reported where the command is started.
        if let Some(Ok(account)) = user.map(|user| Account::find(user)) {
            env.push(("HOME".to_owned(), account.home));
            env.push(("USER".to_owned(), account.name.clone()));
            env.push(("LOGNAME".to_owned(), account.name));
        }
        for layer in [&config.env, &execute.env] {
            env.extend(layer.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        Self { words, env, user: user.cloned(), workdir: config.workdir.clone() }
    }
}

/// Keeps from a program what is for the agent alone. What is set on `command` afterwards counts.
pub(crate) fn hide_unit(command: &mut Command) -> &mut Command {
    for name in OF_UNIT {
        command.env_remove(name);
    }
    command
}

/// Whether one of the databases has this type: below its first letter, or that letter's number.
fn is_known(term: &str, databases: impl IntoIterator<Item = PathBuf>) -> bool {
    let Some(first) = term.chars().next().filter(char::is_ascii_alphanumeric) else {
        return false;
    };
    let folders = [first.to_string(), format!("{:x}", u32::from(first))];
    let has =
        |database: PathBuf| folders.iter().any(|folder| database.join(folder).join(term).is_file());
    !term.contains('/') && databases.into_iter().any(has)
}

fn default_shell() -> &'static str {
    if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" }
}

#[cfg(test)]
mod tests {
    use metaservice_protocol::ExecOptions;

    use super::*;

    fn value<'a>(program: &'a Program, name: &str) -> Option<&'a str> {
        let mut values = program.env.iter().rev();
        values.find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn the_job_has_the_last_word() {
        let config = Config::parse(
            "{entrypoint: [env], env: {A: config, B: config, HOME: /c}, user: root, workdir: /w}",
        )
        .unwrap();
        let execute = Execute {
            env: [("B".to_owned(), "job".to_owned())].into(),
            command: vec!["x".to_owned()],
            ..Execute::default()
        };
        let job = Program::job(&config, &execute);
        assert_eq!(job.words, ["env", "x"]);
        assert_eq!(value(&job, "A"), Some("config"));
        assert_eq!(value(&job, "B"), Some("job"));
        assert_eq!(value(&job, "HOME"), Some("/c"));
        assert_eq!(value(&job, "USER"), Some("root"));
        assert_eq!(value(&job, "TERM"), None);

        let exec = Exec { command: vec!["y".to_owned()], tty: true, ..Exec::default() };
        let shell = Program::shell(&config, &execute, exec);
        assert_eq!(shell.words, ["y"]);
        assert_eq!(value(&shell, "B"), Some("job"));
        assert_eq!(value(&shell, "TERM"), Some("xterm-256color"));
        assert_eq!(shell.workdir.as_deref(), Some(Path::new("/w")));

        let options = ExecOptions {
            env: [("B".to_owned(), "exec".to_owned())].into(),
            workdir: Some("sub".to_owned()),
            user: Some("0".to_owned()),
            ..ExecOptions::default()
        };
        let exec = Program::shell(&config, &execute, Exec { options, ..Exec::default() });
        assert_eq!(value(&exec, "B"), Some("exec"));
        assert_eq!(exec.user.as_deref(), Some("0"));
        assert_eq!(exec.workdir.as_deref(), Some(Path::new("/w/sub")));
    }

    #[test]
    fn what_is_for_the_agents_unit_is_hidden_and_what_is_set_afterwards_is_not() {
        let mut command = Command::new("env");
        hide_unit(command.env("INVOCATION_ID", "the agent's")).env("LISTEN_FDS", "the job's");
        let envs: Vec<_> = command.get_envs().collect();
        assert!(envs.contains(&("INVOCATION_ID".as_ref(), None)), "{envs:?}");
        assert!(envs.contains(&("LISTEN_FDS".as_ref(), Some("the job's".as_ref()))), "{envs:?}");
    }

    #[test]
    fn a_terminal_type_that_the_guest_does_not_know_becomes_a_common_one() {
        let home = tempfile::tempdir().unwrap();
        let database = home.path().join(".terminfo");
        std::fs::create_dir_all(database.join("o")).unwrap();
        std::fs::create_dir_all(database.join("68")).unwrap();
        std::fs::write(database.join("o/own-type"), "").unwrap();
        std::fs::write(database.join("68/hexed"), "").unwrap();
        let term = |term: &str, tty| {
            let home = home.path().to_str().unwrap().to_owned();
            let env = [("HOME".to_owned(), home), ("TERM".to_owned(), term.to_owned())].into();
            let options = ExecOptions { env, ..ExecOptions::default() };
            let exec = Exec { tty, options, ..Exec::default() };
            let program = Program::shell(&Config::default(), &Execute::default(), exec);
            value(&program, "TERM").unwrap().to_owned()
        };
        for known in ["own-type", "hexed", "dumb"] {
            assert_eq!(term(known, true), known);
        }
        for unknown in ["no-such-type", "", "../o/own-type", "/etc/passwd", "o/own-type"] {
            assert_eq!(term(unknown, true), TERMINAL, "{unknown}");
            // Without a terminal it is a variable as any other.
            assert_eq!(term(unknown, false), unknown);
        }
    }

    #[test]
    fn a_shell_without_a_command_is_the_configured_one() {
        let config = Config { shell: vec!["zsh".to_owned(), "-l".to_owned()], ..Config::default() };
        let words = |config| Program::shell(config, &Execute::default(), Exec::default()).words;
        assert_eq!(words(&config), ["zsh", "-l"]);
        assert!(words(&Config::default())[0].starts_with("/bin/"));
    }
}
