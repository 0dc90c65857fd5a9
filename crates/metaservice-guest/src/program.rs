//! A command to run: its words, environment, user and working directory.
//!
//! Owns the order of the environment's layers. A later layer overrides an earlier one: the agent's
//! own environment, HOME, USER and LOGNAME of the user, the image's configuration, the job.

use std::path::{Path, PathBuf};
use std::process::Command;

use metaservice_protocol::{Exec, Execute};

use crate::config::Config;
use crate::system::account::Account;

/// TERM for a command with a terminal, unless another layer sets it.
const TERMINAL: &str = "xterm-256color";

/// Variables that a service manager sets for the main process of a unit (systemd.exec(5)).
///
/// They describe the agent. In a command they would be wrong, and the same in each machine that
/// is restored from one snapshot.
const UNIT_VARIABLES: [&str; 16] = [
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

/// A command with its environment, user and working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) words: Vec<String>,
    /// Added to the agent's own environment. If a name is there twice, the later value counts.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) user: Option<String>,
    pub(crate) workdir: Option<PathBuf>,
}

impl Program {
    /// The job's command, behind the image's entrypoint.
    pub(crate) fn job(config: &Config, execute: &Execute) -> Self {
        let words = config.entrypoint.iter().chain(&execute.command).cloned().collect();
        let term = execute.terminal.map(|_| TERMINAL);
        let mut program = Self::new(config, execute, words, term, config.user.as_ref());
        if execute.terminal.is_some() {
            program.ensure_known_terminal();
        }
        program
    }

    /// The program of an exec action, which runs in addition to the job.
    ///
    /// Without a command, it is the configured shell, or the default one. It has the job's
    /// environment, user and working directory unless the action's options change them. The
    /// image's entrypoint is not used.
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
            program.ensure_known_terminal();
        }
        if let Some(workdir) = options.workdir {
            let base = program.workdir.take().unwrap_or_default();
            program.workdir = Some(base.join(workdir));
        }
        program
    }

    /// Replaces a TERM that the guest has no description of. With an unknown type, editors and
    /// pagers do not start.
    fn ensure_known_terminal(&mut self) {
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
        // The start of the command reports an unknown user.
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

/// Removes the [`UNIT_VARIABLES`]. Variables that are set on `command` later stay.
pub(crate) fn remove_unit_variables(command: &mut Command) -> &mut Command {
    for name in UNIT_VARIABLES {
        command.env_remove(name);
    }
    command
}

/// Whether a terminfo database has this type. Its file is in a subdirectory that is named by the
/// first letter, or by the hexadecimal code of that letter.
fn is_known(term: &str, databases: impl IntoIterator<Item = PathBuf>) -> bool {
    let Some(first) = term.chars().next().filter(char::is_ascii_alphanumeric) else {
        return false;
    };
    let letters = [first.to_string(), format!("{:x}", u32::from(first))];
    let has =
        |database: PathBuf| letters.iter().any(|letter| database.join(letter).join(term).is_file());
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
    fn the_variables_of_the_job_win() {
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
    fn a_command_does_not_get_the_variables_of_the_agents_unit() {
        let mut command = Command::new("env");
        remove_unit_variables(command.env("INVOCATION_ID", "the agent's"))
            .env("LISTEN_FDS", "the job's");
        let envs: Vec<_> = command.get_envs().collect();
        assert!(envs.contains(&("INVOCATION_ID".as_ref(), None)), "{envs:?}");
        assert!(envs.contains(&("LISTEN_FDS".as_ref(), Some("the job's".as_ref()))), "{envs:?}");
    }

    #[test]
    fn an_unknown_terminal_type_becomes_a_common_one() {
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
            // Without a terminal, TERM is a variable like any other.
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
