//! The configuration file of a guest image.
//!
//! Owns the five keys and their types. It refuses what it does not know: a misspelt key in
//! an image is found when the image is made, not when a job misses its user.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use saphyr::{LoadableYamlNode, Scalar, Yaml};

/// What the image's maker wants for every command that runs in it.
///
/// ```
/// use metaservice_guest::Config;
///
/// let config = Config::parse("{ entrypoint: [nice], env: { CI: 'true' }, user: builder }").unwrap();
/// assert_eq!(config.entrypoint, ["nice"]);
/// assert_eq!(config.env["CI"], "true");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Words put in front of the job's command.
    pub entrypoint: Vec<String>,
    /// Environment laid over the agent's own and under the job's.
    pub env: BTreeMap<String, String>,
    /// The shell for exec-shell actions that name none.
    pub shell: Vec<String>,
    /// Whom to run commands as, by name or number.
    pub user: Option<String>,
    /// Where to run commands, and what relative paths of actions refer to.
    pub workdir: Option<PathBuf>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not YAML.
    #[error("the configuration is not YAML")]
    Syntax(#[from] saphyr::ScanError),
    /// The file is not one mapping of keys to values.
    #[error("the configuration is not a mapping")]
    NotAMapping,
    /// A key that does not exist.
    #[error(
        "the configuration has no key '{0}': there are entrypoint, env, shell, user and workdir"
    )]
    UnknownKey(String),
    /// A value of the wrong type.
    #[error("'{key}' in the configuration must be {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// What its value must be.
        expected: &'static str,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file or the key.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads YAML; an empty text is the default.
    ///
    /// # Errors
    /// [`ConfigError`] for what is not YAML, not a known key, or not of its type.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
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
                known(key)?;
                continue;
            }
            match key {
                "entrypoint" => config.entrypoint = words(value).ok_or_else(|| wrong(WORDS))?,
                "shell" => config.shell = words(value).ok_or_else(|| wrong(WORDS))?,
                "env" => config.env = variables(value).ok_or_else(|| wrong(VARIABLES))?,
                "user" => config.user = Some(text_of(value).ok_or_else(|| wrong(TEXT))?),
                "workdir" => {
                    let path = PathBuf::from(value.as_str().ok_or_else(|| wrong(FOLDER))?);
                    config.workdir = Some(path).filter(|path| path.is_absolute());
                    config.workdir.as_ref().ok_or_else(|| wrong(FOLDER))?;
                }
                _ => known(key)?,
            }
        }
        Ok(config)
    }
}

const WORDS: &str = "a list of strings";
const VARIABLES: &str = "a mapping of names to strings";
const TEXT: &str = "a string";
const FOLDER: &str = "an absolute path";

fn known(key: &str) -> Result<(), ConfigError> {
    match key {
        "entrypoint" | "env" | "shell" | "user" | "workdir" => Ok(()),
        _ => Err(ConfigError::UnknownKey(key.to_owned())),
    }
}

/// A string, or what a person who forgot the quotes plainly meant by a number or a boolean.
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
    fn nothing_is_the_default() {
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
        fn any_text_is_survived(text in "[a-z:{}\\[\\],\n \"'&*!|>~-]{0,60}") {
            let _ = Config::parse(&text);
        }
    }
}
