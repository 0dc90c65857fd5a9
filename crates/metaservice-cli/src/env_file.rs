//! Files of environment variables, in the format of `docker run --env-file`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::settings::set_variable;

/// U+FEFF in UTF-8, which some editors write in front of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Adds the variables of a file: one on each line, `#` begins a comment line,
/// a name alone hands on the host's variable. Lines end with LF or CR LF, the file may begin with a
/// byte order mark, and quotes belong to the value.
pub(crate) fn parse(text: &[u8], env: &mut BTreeMap<String, String>) -> Result<()> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        parse_line(line, env).with_context(|| format!("line {}", number + 1))?;
    }
    Ok(())
}

fn parse_line(line: &[u8], env: &mut BTreeMap<String, String>) -> Result<()> {
    let line = std::str::from_utf8(line).context("this is no UTF-8")?.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let export = line.strip_prefix("export").filter(|rest| rest.starts_with(char::is_whitespace));
    ensure!(
        export.is_none(),
        "'export' is for shells, and this is a list of variables: write NAME=VALUE"
    );
    set_variable(line, env)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(text: impl AsRef<[u8]>) -> Result<BTreeMap<String, String>> {
        let mut env = BTreeMap::new();
        parse(text.as_ref(), &mut env)?;
        Ok(env)
    }

    #[test]
    fn an_env_file_reads_as_docker_reads_it() {
        let read = env("# note\n\nA=1\n  B= two = 2 \nA=3\nNOT_SET_ANYWHERE\nE=\n").unwrap();
        let expected = [("A", "3"), ("B", " two = 2 "), ("E", "")];
        assert_eq!(read, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert!(format!("{:#}", env("A=1\n=x").unwrap_err()).starts_with("line 2: "));
        assert!(env("A B=1").is_err());
        assert_eq!(env("PATH").unwrap()["PATH"], std::env::var("PATH").unwrap());
    }

    #[test]
    fn an_env_file_of_any_editor_is_read_or_refused_by_its_line() {
        let expected = [("A", "1"), ("B", "\"two\"")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        for text in ["A=1\nB=\"two\"", "\u{feff}A=1\r\nB=\"two\"\r\n", "A=1\r\n\r\nB=\"two\"\r"] {
            assert_eq!(env(text).unwrap(), expected.clone().into(), "{text:?}");
        }
        assert_eq!(env("EXPORT=1\nexport=2").unwrap().len(), 2);
        let refused = |text: &[u8]| format!("{:#}", env(text).unwrap_err());
        let export = "line 2: 'export' is for shells";
        assert!(refused(b"A=1\nexport B=2").starts_with(export));
        assert!(refused(b"A=1\r\n\texport\tB").starts_with(export));
        assert_eq!(
            refused(b"# latin 1\n\nA=\xe9").split(": ").take(2).last(),
            Some("this is no UTF-8")
        );
        assert!(refused(b"# latin 1\n\nA=\xe9").starts_with("line 3: "));
        // A mark elsewhere is no white space that would be passed over.
        assert!(env("A=1\n\u{feff}B=2").unwrap().contains_key("\u{feff}B"));
    }
}
