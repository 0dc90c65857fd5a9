//! What exactly is run: words, environment, user and folder of a job or a shell.
//!
//! Owns the order in which the layers of the environment lie over each other: the agent's
//! own, what the user brings (HOME, USER, LOGNAME), the configuration's, the job's.

use std::path::{Path, PathBuf};

use metaservice_protocol::Execute;

use crate::account::Account;
use crate::config::Config;

/// The terminal that a shell with a terminal is told it has, unless something else says so.
const TERMINAL: &str = "xterm-256color";

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
        Self::new(config, execute, words, None)
    }

    /// A shell beside the job: same environment, user and folder, no entrypoint.
    pub(crate) fn shell(config: &Config, execute: &Execute, words: Vec<String>, tty: bool) -> Self {
        let words = match (words.is_empty(), config.shell.is_empty()) {
            (false, _) => words,
            (true, false) => config.shell.clone(),
            (true, true) => vec![default_shell().to_owned()],
        };
        Self::new(config, execute, words, tty.then_some(TERMINAL))
    }

    fn new(config: &Config, execute: &Execute, words: Vec<String>, term: Option<&str>) -> Self {
        let mut env: Vec<(String, String)> = Vec::new();
        env.extend(term.map(|term| ("TERM".to_owned(), term.to_owned())));
        // A user who does not exist is reported where the command is started.
        if let Some(Ok(account)) = config.user.as_deref().map(Account::find) {
            env.push(("HOME".to_owned(), account.home));
            env.push(("USER".to_owned(), account.name.clone()));
            env.push(("LOGNAME".to_owned(), account.name));
        }
        for layer in [&config.env, &execute.env] {
            env.extend(layer.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        Self { words, env, user: config.user.clone(), workdir: config.workdir.clone() }
    }
}

fn default_shell() -> &'static str {
    if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" }
}

#[cfg(test)]
mod tests {
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
        };
        let job = Program::job(&config, &execute);
        assert_eq!(job.words, ["env", "x"]);
        assert_eq!(value(&job, "A"), Some("config"));
        assert_eq!(value(&job, "B"), Some("job"));
        assert_eq!(value(&job, "HOME"), Some("/c"));
        assert_eq!(value(&job, "USER"), Some("root"));
        assert_eq!(value(&job, "TERM"), None);

        let shell = Program::shell(&config, &execute, vec!["y".to_owned()], true);
        assert_eq!(shell.words, ["y"]);
        assert_eq!(value(&shell, "B"), Some("job"));
        assert_eq!(value(&shell, "TERM"), Some("xterm-256color"));
        assert_eq!(shell.workdir.as_deref(), Some(Path::new("/w")));
    }

    #[test]
    fn a_shell_without_a_command_is_the_configured_one() {
        let config = Config { shell: vec!["zsh".to_owned(), "-l".to_owned()], ..Config::default() };
        let words = |config| Program::shell(config, &Execute::default(), vec![], false).words;
        assert_eq!(words(&config), ["zsh", "-l"]);
        assert!(words(&Config::default())[0].starts_with("/bin/"));
    }
}
