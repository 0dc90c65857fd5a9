//! The `nats-server` of this host. Only a queue on this host needs it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use metaservice_fleet::server::VARIABLE;
use metaservice_private::bases::BaseDirectory;
use metaservice_qemu::Finding;

/// The oldest release that has all that a queue needs: major and minor number.
const OLDEST: (u32, u32) = (2, 9);

/// A server that can hold a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NatsServer {
    program: PathBuf,
    version: String,
}

impl fmt::Display for NatsServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.program.display(), self.version)
    }
}

impl NatsServer {
    /// The server that a worker of this host would start.
    pub(super) fn of_host() -> Finding<Self> {
        let missing = |problem, hint: &str| Finding::Missing { problem, hint: hint.to_owned() };
        let install = "for a queue on this host, type 'metaservice doctor --install'";
        let Some(program) = program() else {
            return missing("there is no nats-server".to_owned(), install);
        };
        let path = program.display();
        match version(&program) {
            Some(version) if is_new_enough(&version) => Finding::Found(Self { program, version }),
            Some(version) => {
                let (major, minor) = OLDEST;
                let problem = format!("{path} is release {version}, older than {major}.{minor}");
                missing(problem, &format!("set {VARIABLE} to a newer one"))
            }
            None => missing(
                format!("{path} is no nats-server that runs"),
                &format!("set {VARIABLE} to another one"),
            ),
        }
    }
}

/// The first program in the order of a worker: the variable's, the path's, the cache's.
fn program() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os(VARIABLE) {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let standard = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from);
    let cache = BaseDirectory::cache().map(|cache| cache.path().join("metaservice/bin"));
    std::env::split_paths(&path)
        .chain(standard)
        .chain(cache)
        .map(|directory| directory.join("nats-server"))
        .find(|program| program.is_file())
}

fn version(program: &Path) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.arg("--version").stdin(Stdio::null()).output().ok()?;
    version_in(&String::from_utf8_lossy(&output.stdout))
}

/// The version of a line such as `nats-server: v2.9.10`.
fn version_in(text: &str) -> Option<String> {
    let version = text.lines().next()?.strip_prefix("nats-server: v")?;
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || ".-+".contains(letter);
    version.chars().all(is_part).then(|| version.to_owned())
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    numbers.next().zip(numbers.next()).is_some_and(|release| release >= OLDEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_from_2_9_hold_a_queue() {
        for (line, fits) in [
            ("nats-server: v2.9.10\n", true),
            ("nats-server: v2.15.1-beta.1", true),
            ("nats-server: v3.0.0", true),
            ("nats-server: v2.8.4", false),
            ("nats-server: v1.10.0", false),
            ("nats-server: v", false),
        ] {
            let version = version_in(line);
            assert_eq!(version.is_some_and(|version| is_new_enough(&version)), fits, "{line}");
        }
        for wrong in ["", "true (GNU coreutils) 9.1", "nats-server: v2.9\u{1b}[2J"] {
            assert_eq!(version_in(wrong), None, "{wrong}");
        }
    }
}
