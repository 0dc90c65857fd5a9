//! How the command is started: its working directory, user and entry point, and the host name.

use metaservice::Builder;

use crate::spec::JobSpec;

/// The longest path in a Linux guest in bytes.
const MAX_PATH: usize = 4096;

/// The longest host name of a Linux guest in bytes.
const MAX_HOSTNAME: usize = 64;

/// Options that were checked. `None` leaves the choice to the agent's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LaunchOptions {
    workdir: Option<String>,
    user: Option<String>,
    pub(super) hostname: Option<String>,
    entrypoint: Option<Vec<String>>,
}

/// Which option is wrong.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wrong {
    Workdir,
    User,
    Hostname,
    Entrypoint,
}

/// Why an option is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidOption {
    /// The working directory is not an absolute path.
    #[error("write an absolute path in the guest, not {0:?}")]
    Relative(String),
    /// The path is longer than any in a guest.
    #[error("a path has at most {MAX_PATH} bytes")]
    TooLong,
    /// The user has another form.
    #[error("write NAME, UID, NAME:GROUP or UID:GID, not {0:?}")]
    User(String),
    /// The host name has another form.
    #[error(
        "a host name is 1 to {MAX_HOSTNAME} letters, digits, dashes and dots, not {0:?}, and each \
         part between dots begins and ends with a letter or digit"
    )]
    HostName(String),
    /// The first word of the entry point is empty.
    #[error("the first word of an entry point is a program")]
    NoProgram,
    /// A zero byte ends a text in the guest.
    #[error("a zero byte cannot be passed to a guest")]
    ZeroByte,
}

impl LaunchOptions {
    pub(super) fn resolve(spec: &JobSpec) -> Result<Self, (Wrong, InvalidOption)> {
        let JobSpec { workdir, user, hostname, entrypoint, .. } = spec;
        workdir.as_deref().map_or(Ok(()), check_workdir).map_err(|e| (Wrong::Workdir, e))?;
        user.as_deref().map_or(Ok(()), check_user).map_err(|e| (Wrong::User, e))?;
        hostname.as_deref().map_or(Ok(()), check_hostname).map_err(|e| (Wrong::Hostname, e))?;
        let words = entrypoint.as_deref().map_or(Ok(()), check_entrypoint);
        words.map_err(|e| (Wrong::Entrypoint, e))?;
        Ok(Self {
            workdir: workdir.clone(),
            user: user.clone(),
            hostname: hostname.clone(),
            entrypoint: entrypoint.clone(),
        })
    }

    /// Gives the options to the service of the job.
    pub(crate) fn add_to(&self, mut builder: Builder) -> Builder {
        let Self { workdir, user, hostname, entrypoint } = self.clone();
        if let Some(workdir) = workdir {
            builder = builder.workdir(workdir);
        }
        if let Some(user) = user {
            builder = builder.user(user);
        }
        if let Some(hostname) = hostname {
            builder = builder.set_hostname(hostname);
        }
        match entrypoint {
            Some(words) => builder.entrypoint(words),
            None => builder,
        }
    }
}

fn check_workdir(path: &str) -> Result<(), InvalidOption> {
    match path {
        _ if path.contains('\0') => Err(InvalidOption::ZeroByte),
        _ if path.len() > MAX_PATH => Err(InvalidOption::TooLong),
        _ if !path.starts_with('/') => Err(InvalidOption::Relative(path.to_owned())),
        _ => Ok(()),
    }
}

fn check_user(user: &str) -> Result<(), InvalidOption> {
    let name = |name: &str| {
        let fit = |c: char| !c.is_whitespace() && !c.is_control() && c != ':';
        !name.is_empty() && name.chars().all(fit)
    };
    let fits = match user.split_once(':') {
        Some((user, group)) => name(user) && name(group),
        None => name(user),
    };
    if fits { Ok(()) } else { Err(InvalidOption::User(user.to_owned())) }
}

fn check_hostname(hostname: &str) -> Result<(), InvalidOption> {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let fit = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.len() <= 63 && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(fit)
    };
    let fits = hostname.len() <= MAX_HOSTNAME && hostname.split('.').all(label);
    if fits { Ok(()) } else { Err(InvalidOption::HostName(hostname.to_owned())) }
}

fn check_entrypoint(words: &[String]) -> Result<(), InvalidOption> {
    match words {
        [first, ..] if first.is_empty() => Err(InvalidOption::NoProgram),
        words if words.iter().any(|word| word.contains('\0')) => Err(InvalidOption::ZeroByte),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_directory_is_an_absolute_path() {
        for path in ["/", "/src", "/a b/\u{e9}"] {
            assert_eq!(check_workdir(path), Ok(()));
        }
        for path in ["", ".", "src", "~/src"] {
            assert_eq!(check_workdir(path), Err(InvalidOption::Relative(path.to_owned())));
        }
        assert_eq!(check_workdir("/a\0"), Err(InvalidOption::ZeroByte));
        assert_eq!(check_workdir(&format!("/{}", "x".repeat(4096))), Err(InvalidOption::TooLong));
    }

    #[test]
    fn a_user_is_one_or_two_names_or_numbers() {
        for user in ["root", "0", "www-data:www-data", "1000:1000", "a.b$"] {
            assert_eq!(check_user(user), Ok(()));
        }
        for user in ["", ":", "a:", ":a", "a:b:c", "a b", "a\n"] {
            assert_eq!(check_user(user), Err(InvalidOption::User(user.to_owned())));
        }
    }

    #[test]
    fn a_host_name_has_labels() {
        let longest = format!("{}.a", "x".repeat(62));
        for name in ["a", "db-1.example", "9", &longest] {
            assert_eq!(check_hostname(name), Ok(()));
        }
        let long = format!("{}.ab", "x".repeat(62));
        let label = "x".repeat(64);
        for name in ["", "-a", "a-", "a..b", ".a", "a.", "a_b", "a b", "\u{e9}", &long, &label] {
            assert_eq!(check_hostname(name), Err(InvalidOption::HostName(name.to_owned())));
        }
    }

    #[test]
    fn an_entry_point_has_a_program_or_nothing() {
        let check = |words: &[&str]| {
            check_entrypoint(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!((check(&[]), check(&["env", "", "-i"])), (Ok(()), Ok(())));
        assert_eq!(check(&[""]), Err(InvalidOption::NoProgram));
        assert_eq!(check(&["a", "\0"]), Err(InvalidOption::ZeroByte));
    }
}
