//! The configuration file of a guest image.
//!
//! Owns the five keys and their types. An unknown key is an error: you notice a misspelt key when
//! you make the image, not when a job runs as the wrong user.
//!
//! The file is YAML, because the images of version 1 have YAML files, and must keep working. The
//! parser adds 135 KiB to an agent of 2.4 MiB, which is much for five keys. A parser for a subset
//! of YAML would be smaller, but would read some of those files differently.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use metaservice_protocol::Execute;
use saphyr::{LoadableYamlNode, Scalar, Yaml};

/// The image's settings for every command that runs in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// Words in front of the job's command.
    pub(crate) entrypoint: Vec<String>,
    /// Variables that override the agent's environment. The job's variables override these.
    pub(crate) env: BTreeMap<String, String>,
    /// The command of shells that name none.
    pub(crate) shell: Vec<String>,
    /// The user that commands run as, by name or number.
    pub(crate) user: Option<String>,
    /// The working directory of commands, and the base of relative paths in actions.
    pub(crate) workdir: Option<PathBuf>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the configuration is not YAML")]
    Syntax(#[from] saphyr::ScanError),
    #[error("the configuration is not a mapping")]
    NotAMapping,
    #[error(
        "the configuration has no key '{0}': there are entrypoint, env, shell, user and workdir"
    )]
    UnknownKey(String),
    #[error("'{key}' in the configuration must be {expected}")]
    WrongType { key: String, expected: &'static str },
}

impl Config {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads YAML. An empty text is the default.
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let documents = Yaml::load_from_str(text)?;
        let document = match documents.first() {
            None => return Ok(config),
            Some(document) if document.is_null() => return Ok(config),
            Some(document) => document.as_mapping().ok_or(ConfigError::NotAMapping)?,
        };
        for (key, value) in document {
            let key = key.as_str().ok_or(ConfigError::NotAMapping)?;
            let wrong = |expected| ConfigError::WrongType { key: key.to_owned(), expected };
            if value.is_null() {
                check_key(key)?;
                continue;
            }
            match key {
                "entrypoint" => config.entrypoint = words(value).ok_or_else(|| wrong(WORDS))?,
                "shell" => config.shell = words(value).ok_or_else(|| wrong(WORDS))?,
                "env" => config.env = variables(value).ok_or_else(|| wrong(VARIABLES))?,
                "user" => config.user = Some(text_of(value).ok_or_else(|| wrong(TEXT))?),
                "workdir" => {
                    let path = PathBuf::from(value.as_str().ok_or_else(|| wrong(ABSOLUTE))?);
                    config.workdir = Some(path).filter(|path| path.is_absolute());
                    config.workdir.as_ref().ok_or_else(|| wrong(ABSOLUTE))?;
                }
                _ => check_key(key)?,
            }
        }
        Ok(config)
    }

    /// The settings for the commands of a job, whose own settings override these.
    pub(crate) fn for_job(mut self, execute: &Execute) -> Self {
        if let Some(entrypoint) = &execute.entrypoint {
            self.entrypoint.clone_from(entrypoint);
        }
        if let Some(workdir) = &execute.workdir {
            self.workdir = Some(self.workdir.unwrap_or_default().join(workdir));
        }
        self.user = execute.user.clone().or(self.user);
        self
    }

    /// The absolute path for the path of an action: a relative one starts at the working directory.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        if path.is_absolute() || path == Path::new("") {
            return path.to_owned();
        }
        match &self.workdir {
            Some(workdir) => workdir.join(path),
            None => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        }
    }
}

const WORDS: &str = "a list of strings";
const VARIABLES: &str = "a mapping of names to strings";
const TEXT: &str = "a string";
const ABSOLUTE: &str = "an absolute path";

fn check_key(key: &str) -> Result<(), ConfigError> {
    match key {
        "entrypoint" | "env" | "shell" | "user" | "workdir" => Ok(()),
        _ => Err(ConfigError::UnknownKey(key.to_owned())),
    }
}

/// A string. A number or a boolean without quotes counts as the text that was written.
fn text_of(value: &Yaml<'_>) -> Option<String> {
    match value {
        Yaml::Value(Scalar::String(text)) => Some(text.to_string()),
        Yaml::Value(Scalar::Integer(number)) => Some(number.to_string()),
        Yaml::Value(Scalar::Boolean(truth)) => Some(truth.to_string()),
        _ => None,
    }
}

fn words(value: &Yaml<'_>) -> Option<Vec<String>> {
    value.as_sequence()?.iter().map(text_of).collect()
}

fn variables(value: &Yaml<'_>) -> Option<BTreeMap<String, String>> {
    let pairs = value.as_mapping()?.iter();
    pairs.map(|(name, value)| Some((name.as_str()?.to_owned(), text_of(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_five_keys_are_read() {
        let text = "
            # comment
            entrypoint: [sudo, -n]
            env:
              CI: true
              LEVEL: 7
              NAME: 'a: b'
            shell:
              - /bin/zsh
              - -l
            user: 1000
            workdir: /home/builder
        ";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.entrypoint, ["sudo", "-n"]);
        let env: Vec<_> = config.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(env, ["CI=true", "LEVEL=7", "NAME=a: b"]);
        assert_eq!(config.shell, ["/bin/zsh", "-l"]);
        assert_eq!(config.user.as_deref(), Some("1000"));
        assert_eq!(config.workdir, Some("/home/builder".into()));
    }

    #[test]
    fn the_settings_of_the_job_win() {
        let text = "{entrypoint: [sudo], user: builder, workdir: /w, shell: [zsh]}";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.clone().for_job(&Execute::default()), config);
        let of_job = |entrypoint: &[&str], workdir: &str| {
            let words = entrypoint.iter().map(|word| (*word).to_owned()).collect();
            config.clone().for_job(&Execute {
                entrypoint: Some(words),
                workdir: Some(workdir.to_owned()),
                user: Some("0".to_owned()),
                ..Execute::default()
            })
        };
        let own = of_job(&["env", "-i"], "/src");
        assert_eq!(own.entrypoint, ["env", "-i"]);
        assert_eq!((own.user.as_deref(), own.workdir), (Some("0"), Some("/src".into())));
        assert_eq!(own.shell, config.shell);
        let own = of_job(&[], "sub");
        assert!(own.entrypoint.is_empty());
        assert_eq!(own.workdir, Some("/w/sub".into()));
        assert_eq!(own.resolve("a"), Path::new("/w/sub/a"));
    }

    #[test]
    fn an_empty_file_is_the_default() {
        for text in ["", "# nothing\n", "---\n", "env:\nuser: ~\n", "{}"] {
            assert_eq!(Config::parse(text).unwrap(), Config::default(), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text| Config::parse(text).unwrap_err().to_string();
        assert!(error("users: a").contains("no key 'users'"));
        assert!(error("usr:").contains("no key 'usr'"));
        assert_eq!(
            error("env: [a]"),
            "'env' in the configuration must be a mapping of names to strings"
        );
        assert_eq!(error("shell: sh"), "'shell' in the configuration must be a list of strings");
        assert_eq!(
            error("workdir: here"),
            "'workdir' in the configuration must be an absolute path"
        );
        assert_eq!(error("user: {a: b}"), "'user' in the configuration must be a string");
        assert_eq!(error("- a"), "the configuration is not a mapping");
        assert_eq!(error("a: 'b"), "the configuration is not YAML");
        let missing = Config::read(Path::new("/nowhere/c.yml")).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read the configuration /nowhere/c.yml");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z:{}\\[\\],\n \"'&*!|>~-]{0,60}") {
            let _ = Config::parse(&text);
        }
    }
}
