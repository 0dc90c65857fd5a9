//! A `nats-server` of this host, for a queue that needs no installation.
//!
//! It listens on loopback only, at a port of the system's choice, with its data in a directory that
//! only its user can read. A random password keeps other users of the host out.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use metaservice_private::Directory;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use crate::name::RunId;

/// How long the server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the server may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The variable that names another `nats-server`.
pub const VARIABLE: &str = "METASERVICE_NATS_SERVER";

/// The file that has the address, for the clients of this user.
const ADDRESS: &str = "address";

/// The file that configures the server.
const CONFIGURATION: &str = "server.conf";

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// There is no `nats-server`.
    #[error("there is no nats-server")]
    NotInstalled,
    /// Another worker of this user runs it.
    #[error("another process runs the queue of {}", .0.display())]
    Running(PathBuf),
    /// Its directory cannot be used.
    #[error("cannot use the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Another user can change its directory.
    #[error(transparent)]
    Private(#[from] metaservice_private::PrivateError),
    /// It cannot be started.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It ended, or did not listen in time. Its last lines say why.
    #[error("nats-server did not start: {0}")]
    Ended(String),
}

/// A server that this process runs. It ends with this value.
#[derive(Debug)]
pub struct LocalServer {
    child: Child,
    /// The pipe whose end ends the server. The child would close it before a wait.
    _alive: Option<ChildStdin>,
    /// A pipe that ends with the shell's other half.
    shell: Option<ChildStdout>,
    directory: PathBuf,
    url: String,
    _lock: std::fs::File,
}

impl LocalServer {
    /// Starts a server with its data in this directory.
    ///
    /// # Errors
    /// When there is no `nats-server`, another process runs one here, or it does not start.
    pub async fn start(directory: &Path) -> Result<Self, ServerError> {
        let failed = |cause| ServerError::Directory { path: directory.to_owned(), cause };
        std::fs::create_dir_all(directory.parent().unwrap_or(directory)).map_err(failed)?;
        let (private, _) = Directory::open_or_make(directory)?;
        let lock = lock(directory).map_err(failed)?;
        let lock = lock.ok_or_else(|| ServerError::Running(directory.to_owned()))?;
        let program = program().ok_or(ServerError::NotInstalled)?;
        let ports = directory.join("ports");
        // What a server left that was killed.
        let _ = std::fs::remove_file(directory.join(ADDRESS));
        let _ = std::fs::remove_dir_all(&ports);
        std::fs::create_dir_all(&ports).map_err(failed)?;
        let password = format!("{}{}", RunId::random(), RunId::random());
        let config = directory.join(CONFIGURATION);
        let log = directory.join("server.log");
        let text = configuration(directory, &ports, &log, &password);
        private.replace(CONFIGURATION, text.as_bytes())?;
        let _ = std::fs::remove_file(&log);
        let mut child = command(&program, &config)
            .spawn()
            .map_err(|cause| ServerError::Start { program, cause })?;
        let (alive, shell) = (child.stdin.take(), child.stdout.take());
        let mut server = Self {
            child,
            _alive: alive,
            shell,
            directory: directory.to_owned(),
            url: String::new(),
            _lock: lock,
        };
        let port = server.port(&ports, &log).await?;
        server.url = format!("nats://metaservice:{password}@127.0.0.1:{port}");
        private.replace(ADDRESS, server.url.as_bytes())?;
        Ok(server)
    }

    /// Waits until the server has written the port that it got.
    async fn port(&mut self, ports: &Path, log: &Path) -> Result<u16, ServerError> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            // The server writes its port to a file of its own name. It has no other sign.
            if let Some(port) = written_port(ports) {
                return Ok(port);
            }
            let ended = tokio::time::timeout(Duration::from_millis(20), self.child.wait()).await;
            if ended.is_ok() || Instant::now() > until {
                let text = std::fs::read_to_string(log).unwrap_or_default();
                let last = text.lines().rev().take(3).collect::<Vec<_>>();
                return Err(ServerError::Ended(
                    last.into_iter().rev().collect::<Vec<_>>().join("; "),
                ));
            }
        }
    }

    /// The address, with the password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits until the server has ended, which it does by a fault only.
    pub async fn ended(&mut self) {
        let _ = self.child.wait().await;
    }

    /// Ends the server in order. Then none of its processes is left.
    pub async fn stop(mut self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let Some(group) = id.and_then(rustix::process::Pid::from_raw) else { return };
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
        let ended = async {
            let _ = self.child.wait().await;
            if let Some(shell) = &mut self.shell {
                let _ = shell.read_to_end(&mut Vec::new()).await;
            }
        };
        let _ = tokio::time::timeout(STOP_TIMEOUT, ended).await;
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.directory.join(ADDRESS));
    }
}

/// The address of the server that another process of this user runs in this directory.
#[must_use]
pub fn running(directory: &Path) -> Option<String> {
    let url = std::fs::read_to_string(directory.join(ADDRESS)).ok()?;
    // Without a process that holds the lock, the file is what a killed one left.
    match lock(directory) {
        Ok(None) => Some(url),
        _ => None,
    }
}

/// Takes the lock of the directory; `None` if another process has it.
fn lock(directory: &Path) -> io::Result<Option<std::fs::File>> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

/// The server's program: that of the variable, of the cache that `doctor` fills, or of the path.
fn program() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os(VARIABLE) {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let standard = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from);
    let cache = metaservice_private::bases::BaseDirectory::cache();
    let cache = cache.map(|cache| cache.path().join("metaservice/bin"));
    std::env::split_paths(&path)
        .chain(standard)
        .chain(cache)
        .map(|directory| directory.join("nats-server"))
        .find(|program| program.is_file())
}

fn configuration(directory: &Path, ports: &Path, log: &Path, password: &str) -> String {
    let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
    format!(
        "listen: \"127.0.0.1:-1\"\n\
         ports_file_dir: {}\n\
         log_file: {}\n\
         max_payload: 1048576\n\
         authorization {{ user: metaservice, password: \"{password}\" }}\n\
         jetstream {{ store_dir: {} }}\n",
        quoted(ports),
        quoted(log),
        quoted(&directory.join("data")),
    )
}

/// Runs the server as a child that ends with this process, however that ends: the shell's other half
/// waits for the end of a pipe that only this process holds. It has the process group of the server,
/// so the id that it kills is of no other process.
const SHELL: &str = "exec 3<&0\n\
    { cat <&3; kill $$; } 2> /dev/null &\n\
    exec 3<&-\n\
    exec \"$@\" < /dev/null > /dev/null";

fn command(program: &Path, config: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(SHELL).arg("sh").arg(program).arg("-c").arg(config);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // Ctrl-C of the terminal is for the worker, which ends the server after its jobs.
    command.process_group(0).kill_on_drop(true);
    command
}

/// The port that the server wrote: its file is JSON with a list of addresses.
fn written_port(ports: &Path) -> Option<u16> {
    let file = std::fs::read_dir(ports).ok()?.flatten().next()?.path();
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    json["nats"][0].as_str()?.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Queue, Settings};

    /// The number of processes that have the directory in their command line.
    fn processes_of(directory: &Path) -> usize {
        let text = directory.to_str().unwrap();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clients_find_the_server_while_it_runs_and_only_one_runs() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("server");
        assert_eq!(running(&place), None);
        let server = LocalServer::start(&place).await.unwrap();
        let url = running(&place).unwrap();
        assert_eq!(url, server.url());
        Queue::connect(&Settings::new(url.clone())).await.unwrap();
        let second = LocalServer::start(&place).await;
        assert!(matches!(second, Err(ServerError::Running(_))), "{second:?}");
        let without_password = format!("nats://{}", url.rsplit_once('@').unwrap().1);
        assert!(Queue::connect(&Settings::new(without_password)).await.is_err());
        assert!(processes_of(&place) >= 2, "the server and what ends it");
        server.stop().await;
        assert_eq!(processes_of(&place), 0);
        assert_eq!(running(&place), None);
        let again = LocalServer::start(&place).await.unwrap();
        Queue::connect(&Settings::new(again.url())).await.unwrap();
    }
}
