//! The users and the certificate of the page, in files.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use metaservice_private::bases::BaseDirectory;
use metaservice_private::{Directory, replace};
use metaservice_web::{Grant, Identity, MadeIdentity, NewUser, Users};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::hints::hinted;
use crate::output;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

/// The largest file of users or certificates, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The user of --add-user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewUserArg {
    name: String,
    grant: Grant,
}

impl FromStr for NewUserArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, role) = text.split_once(':').ok_or("NAME:ROLE is expected, as anna:watch")?;
        let grant = role.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { name: name.to_owned(), grant })
    }
}

/// Adds a user to the file, and prints the token.
pub(super) fn add_user(
    file: &Path,
    NewUserArg { name, grant }: &NewUserArg,
    printer: Printer,
) -> Result<ExitStatus> {
    let cannot = || format!("in --add-user {name}");
    let mut text = match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read {}", file.display()))?,
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if let Ok(users) = Users::parse(&text) {
        let text = "has a user of this name: delete the line first";
        ensure!(!users.has(name), "in --add-user {name}: {} {text}", file.display());
    }
    let user = NewUser::make(name, *grant).with_context(cannot)?;
    text.push_str(user.line());
    text.push('\n');
    Users::parse(&text).with_context(|| format!("in {}", file.display()))?;
    replace(file, text.as_bytes(), 0o600)
        .with_context(|| format!("cannot write {}", file.display()))?;
    if printer.is_json() {
        let facts = json!({ "name": name, "role": grant.word(), "token": user.token() });
        output::line(facts)?;
    } else {
        output::line(user.token())?;
        printer.note(&format!("this is the token of {name}; it is stored nowhere else"));
    }
    Ok(ExitStatus::SUCCESS)
}

/// The users of a file.
pub(super) fn users(file: &Path) -> Result<Users> {
    let wrong = || format!("in --auth {}", file.display());
    let bytes = read(file).map_err(|error| {
        let hint = "`metaservice web --auth FILE --add-user NAME:admin` makes the file";
        hinted(hint.to_owned(), format!("in --auth: {error:#}"))
    })?;
    let text = String::from_utf8(bytes).with_context(wrong)?;
    Users::parse(&text).with_context(wrong)
}

/// Names that can be in an address.
pub(super) fn names(names: &[String]) -> Result<Vec<String>> {
    for name in names {
        let proxy = ["https://", "http://"].iter().find_map(|scheme| name.strip_prefix(scheme));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-[]:".contains(&byte);
        let is_host = |name: &str| (1..=253).contains(&name.len()) && name.bytes().all(is_plain);
        if let Some(address) = proxy {
            let text = "is not the address of a proxy, as https://jobs.example.org";
            ensure!(is_host(address), "in --name: {name:?} {text}");
            continue;
        }
        ensure!(is_host(name), "in --name: {name:?} is not the name of a host");
        let has_port = !name.starts_with('[') && name.contains(':');
        ensure!(!has_port, "in --name: {name} has a port; the port is that of --listen");
    }
    Ok(names.to_vec())
}

/// The certificate of two files.
pub(super) fn given_identity(chain: &Path, key: &Path) -> Result<Identity> {
    let (chain_text, key_text) = (read(chain)?, read(key)?);
    Identity::from_pem(&chain_text, &key_text).with_context(|| {
        format!("in --tls-cert {} and --tls-key {}", chain.display(), key.display())
    })
}

/// The certificate of this user for an address and names: made once, so that browsers know it.
pub(super) fn own_identity(listen: SocketAddr, names: &[String]) -> Result<Identity> {
    let plain = |name: &String| name.trim_matches(['[', ']']).to_owned();
    let mut all: Vec<_> = names.iter().map(plain).collect();
    if !listen.ip().is_unspecified() {
        all.push(listen.ip().to_string());
    }
    if listen.ip().is_loopback() {
        all.push("localhost".to_owned());
    }
    let Some(base) = BaseDirectory::state() else {
        bail!("there is no directory for a certificate: set HOME, or use --tls-cert")
    };
    base.make()?;
    let directory = Directory::within(&base.path(), &["metaservice", "web"])?;
    // Others than before need another certificate.
    let digest = metaservice_private::hex(&Sha256::digest(all.join("\n")));
    let (chain, key) = (format!("{}.pem", &digest[..16]), format!("{}.key", &digest[..16]));
    let path = directory.path().to_owned();
    if !path.join(&key).exists() || !path.join(&chain).exists() {
        let made = MadeIdentity::new(&all).context("in --tls")?;
        directory.replace(&key, made.key.as_bytes())?;
        directory.replace(&chain, made.certificate.as_bytes())?;
    }
    given_identity(&path.join(chain), &path.join(key))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(file)
        .and_then(|opened| opened.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(bytes.len() as u64 <= MAX_FILE, "{} has more than 1 MiB", file.display());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_and_a_role() {
        let user = NewUserArg { name: "anna".to_owned(), grant: Grant::Proxy };
        assert_eq!("anna:proxy".parse(), Ok(user));
        for wrong in ["anna", "anna:", "anna:root", ""] {
            assert!(wrong.parse::<NewUserArg>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_has_no_port_and_no_path() {
        let valid = |name: &str| names(&[name.to_owned()]).is_ok();
        for name in ["jobs.example.org", "localhost", "[2001:db8::1]", "192.0.2.7"] {
            assert!(valid(name), "{name}");
        }
        for name in ["https://jobs.example.org", "https://[2001:db8::1]:8443", "http://a"] {
            assert!(valid(name), "{name}");
        }
        let proxies = ["https://", "https://a/", "https://a/b", "https://a b", "https://u@a"];
        for name in ["", "a:80", "a/b", "a b", "a\r\n", "ftp://a"].into_iter().chain(proxies) {
            assert!(!valid(name), "{name}");
        }
    }
}
