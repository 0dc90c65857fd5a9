//! Environment variables of the command, and files with such variables in the format of
//! `docker run --env-file`.

use std::collections::BTreeMap;
use std::env::VarError;

/// U+FEFF in UTF-8, which some editors write at the beginning of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Text that sets no variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidVariable {
    /// The name is empty.
    #[error("a variable needs a name: {0:?}")]
    NoName(String),
    /// The name has white space.
    #[error("a variable's name has no white space: {0:?}")]
    WhiteSpace(String),
    /// The name or the value has a zero byte.
    #[error("a variable cannot contain a zero byte: {0}")]
    ZeroByte(String),
    /// The host's variable of this name is not UTF-8.
    #[error("cannot pass on {name}")]
    NotUtf8 {
        /// The variable's name.
        name: String,
        /// What the environment has.
        #[source]
        cause: VarError,
    },
}

/// Why a file of variables is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}")]
pub struct EnvFileError {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    #[source]
    pub cause: InvalidLine,
}

/// Why a line of a file of variables is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLine {
    /// It is not UTF-8.
    #[error("this is not UTF-8")]
    NotUtf8,
    /// It begins with `export`.
    #[error("'export' is for shells, and this is a list of variables: write NAME=VALUE")]
    Export,
    /// It sets no variable.
    #[error(transparent)]
    Variable(#[from] InvalidVariable),
}

/// Sets a variable from `NAME=VALUE`. A name alone passes on the host's variable, if it is set.
///
/// # Errors
/// When the text sets no variable. `env` is unchanged then.
pub fn set_variable(text: &str, env: &mut BTreeMap<String, String>) -> Result<(), InvalidVariable> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    check_name(name)?;
    if text.contains('\0') {
        return Err(InvalidVariable::ZeroByte(name.to_owned()));
    }
    let value = match value {
        Some(value) => Some(value),
        None => match std::env::var(name) {
            Ok(value) => Some(value),
            Err(VarError::NotPresent) => None,
            Err(cause) => return Err(InvalidVariable::NotUtf8 { name: name.to_owned(), cause }),
        },
    };
    if let Some(value) = value {
        env.insert(name.to_owned(), value);
    }
    Ok(())
}

pub(super) fn check_name(name: &str) -> Result<(), InvalidVariable> {
    if name.is_empty() {
        return Err(InvalidVariable::NoName(name.to_owned()));
    }
    if name.contains(char::is_whitespace) {
        return Err(InvalidVariable::WhiteSpace(name.to_owned()));
    }
    if name.contains('\0') {
        return Err(InvalidVariable::ZeroByte(name.replace('\0', "")));
    }
    Ok(())
}

/// Adds the variables of a file: one on each line. `#` begins a comment line. A name alone passes
/// on the host's variable. Lines end with LF or CR LF, and the file may begin with a byte order
/// mark. Quotes belong to the value.
///
/// # Errors
/// The first line that is wrong. The variables of the lines before it are in `env`.
pub fn parse_env_file(text: &[u8], env: &mut BTreeMap<String, String>) -> Result<(), EnvFileError> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        parse_line(line, env).map_err(|cause| EnvFileError { line: number + 1, cause })?;
    }
    Ok(())
}

fn parse_line(line: &[u8], env: &mut BTreeMap<String, String>) -> Result<(), InvalidLine> {
    let line = std::str::from_utf8(line).map_err(|_| InvalidLine::NotUtf8)?.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let export = line.strip_prefix("export").filter(|rest| rest.starts_with(char::is_whitespace));
    if export.is_some() {
        return Err(InvalidLine::Export);
    }
    Ok(set_variable(line, env)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(text: impl AsRef<[u8]>) -> Result<BTreeMap<String, String>, EnvFileError> {
        let mut env = BTreeMap::new();
        parse_env_file(text.as_ref(), &mut env)?;
        Ok(env)
    }

    fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn an_env_file_reads_as_docker_reads_it() {
        let read = env("# note\n\nA=1\n  B= two = 2 \nA=3\nNOT_SET_ANYWHERE\nE=\n").unwrap();
        assert_eq!(read, map([("A", "3"), ("B", " two = 2 "), ("E", "")]));
        assert_eq!(env("PATH").unwrap()["PATH"], std::env::var("PATH").unwrap());
    }

    #[test]
    fn an_env_file_of_any_editor_is_read() {
        let expected = map([("A", "1"), ("B", "\"two\"")]);
        for text in ["A=1\nB=\"two\"", "\u{feff}A=1\r\nB=\"two\"\r\n", "A=1\r\n\r\nB=\"two\"\r"] {
            assert_eq!(env(text).unwrap(), expected, "{text:?}");
        }
        assert_eq!(env("EXPORT=1\nexport=2").unwrap().len(), 2);
        // A mark elsewhere is part of a name.
        assert!(env("A=1\n\u{feff}B=2").unwrap().contains_key("\u{feff}B"));
    }

    #[test]
    fn a_wrong_line_is_refused_by_its_number() {
        let wrong = |text: &[u8]| env(text).unwrap_err();
        let at = |line, cause| EnvFileError { line, cause };
        assert_eq!(wrong(b"A=1\nexport B=2"), at(2, InvalidLine::Export));
        assert_eq!(wrong(b"A=1\r\n\texport\tB"), at(2, InvalidLine::Export));
        assert_eq!(wrong(b"# latin 1\n\nA=\xe9"), at(3, InvalidLine::NotUtf8));
        let nameless = InvalidVariable::NoName(String::new());
        assert_eq!(wrong(b"A=1\n=x"), at(2, nameless.into()));
        let blank = InvalidVariable::WhiteSpace("A B".to_owned());
        assert_eq!(wrong(b"A B=1"), at(1, blank.into()));
        let zero = InvalidVariable::ZeroByte("A".to_owned());
        assert_eq!(wrong(b"A=\0"), at(1, zero.into()));
    }
}
