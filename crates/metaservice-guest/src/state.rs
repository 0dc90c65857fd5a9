//! The directory in which a job outlives its agent.
//!
//! Owns the files, their atomic creation and the privacy of the directory. It does not decide what
//! they mean for a restarted agent: see [`job`](crate::job).
//!
//! | file | written by | meaning |
//! | --- | --- | --- |
//! | `agent` | agent | locked while an agent uses the directory |
//! | `boot` | agent | the boot in which the other files were written |
//! | `nonce` | agent | the nonce with which it claims jobs |
//! | `session` | agent | what the service has granted: a secret |
//! | `execute` | agent | the job that the other files belong to |
//! | `supervisor` | supervisor | identifies it; created once, before the command starts |
//! | `main` | supervisor | identifies the command's main process, for signals |
//! | `failure` | supervisor's child | why the command could not start; empty if it started |
//! | `attach` | agent | the id of the last attach action, which the supervisor replies to |
//! | `begun` | supervisor | the start is over; only if the agent waits for it |
//! | `ending` | supervisor | how the command ended, once its whole process tree is gone |
//! | `delivered` | supervisor | the service has confirmed the whole log |
//! | `reported` | agent | the service has accepted the result |
//! | `volumes` | agent | the volumes that are mounted in this machine, until its end |
//! | `layers` | agent | the tmpfs for layers of volumes, in a machine of another init |
//! | `shell-*` | agent | a directory of the same kind for each shell |
//!
//! Nothing is synced to disk, because nothing is needed after a reboot. Files that survived a
//! reboot belong to the job of another machine. The agent recognises them by `boot` and removes
//! them.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, io};

use metaservice_private::{hex, replace_unsynced};
use metaservice_protocol::{ActionId, Ending, Execute, SessionGrant, Volume};
use rustix::fs::FlockOperation;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::system::descriptor::Descriptor;
use crate::system::processes::{self, ProcessIdentity};

/// How long the previous agent may take to release its lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("cannot use the state directory {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the state directory {} is not a directory that belongs to this user", .0.display())]
    NotOwned(PathBuf),
    #[error("another agent uses the state directory {}", .0.display())]
    Busy(PathBuf),
}

/// The state of one command: of the job, or of a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateDirectory {
    path: PathBuf,
}

/// The lock of a state directory: only one agent can use it at a time. The kernel releases the lock
/// when the agent dies.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: File,
}

impl StateDirectory {
    /// The directory at a path that was checked before.
    pub(crate) const fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The directory of another agent, for reading only.
    pub(crate) fn of(path: Option<PathBuf>) -> Self {
        Self { path: path.unwrap_or_else(default_path) }
    }

    /// Creates the directory if it is missing, checks that no other user can write to it, and
    /// locks it for this agent.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<(Self, StateLock), StateError> {
        Self::open_by(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// As [`open`](Self::open), but waits a moment for the lock of a previous agent.
    ///
    /// If that agent was killed while it forked, the child holds the lock until it execs or ends.
    pub(crate) async fn open_soon(path: Option<PathBuf>) -> Result<(Self, StateLock), StateError> {
        let busy = match Self::open(path.clone()) {
            Err(StateError::Busy(busy)) => busy,
            opened => return opened,
        };
        let waiting = spawn_blocking(move || Self::open_by(path, FlockOperation::LockExclusive));
        match timeout(LOCK_TIMEOUT, waiting).await {
            Ok(Ok(opened)) => opened,
            _ => Err(StateError::Busy(busy)),
        }
    }

    fn open_by(
        path: Option<PathBuf>,
        operation: FlockOperation,
    ) -> Result<(Self, StateLock), StateError> {
        let path = path.unwrap_or_else(default_path);
        let path = std::path::absolute(&path).unwrap_or(path);
        let failed = |source| StateError::Io { path: path.clone(), source };
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let metadata = fs::symlink_metadata(&path).map_err(failed)?;
        if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(StateError::NotOwned(path));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let state = Self { path: path.clone() };
        let file = File::create(state.file("agent")).map_err(failed)?;
        match rustix::fs::flock(&file, operation) {
            Ok(()) => {
                state.begin_boot()?;
                Ok((state, StateLock { _file: file }))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::Busy(path)),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Removes the files of another boot.
    fn begin_boot(&self) -> Result<(), StateError> {
        let boot = processes::boot_id();
        if self.read::<String>("boot").is_some_and(|before| before != boot) {
            for entry in fs::read_dir(&self.path).map_err(self.failed(""))?.flatten() {
                let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let path = entry.path();
                let removed = match entry.file_name().to_str() {
                    Some("agent") => Ok(()),
                    _ if is_directory => fs::remove_dir_all(path),
                    _ => fs::remove_file(path),
                };
                removed.map_err(self.failed(""))?;
            }
        }
        self.write("boot", &boot)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn failed(&self, name: &str) -> impl Fn(io::Error) -> StateError {
        let path = self.file(name);
        move |source| StateError::Io { path: path.clone(), source }
    }

    /// The job of an earlier agent, if there is one that can be read.
    pub(crate) fn execute(&self) -> Option<Execute> {
        self.read("execute")
    }

    pub(crate) fn set_execute(&self, execute: &Execute) -> Result<(), StateError> {
        self.write("execute", execute)
    }

    /// What the service has granted to the agents of this directory.
    pub(crate) fn session(&self) -> Option<SessionGrant> {
        self.read("session")
    }

    pub(crate) fn set_session(&self, grant: &SessionGrant) -> Result<(), StateError> {
        self.write("session", grant)
    }

    /// The nonce with which the agents of this directory claim a job: random, created once.
    pub(crate) fn nonce(&self) -> Result<ActionId, StateError> {
        if let Some(nonce) = self.read("nonce") {
            return Ok(nonce);
        }
        let mut bits = [0; 32];
        File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut bits))
            .map_err(self.failed("nonce"))?;
        let text = hex(&bits);
        let invalid = |_| self.failed("nonce")(io::ErrorKind::InvalidData.into());
        let nonce = ActionId::parse(&text).map_err(invalid)?;
        self.write("nonce", &nonce)?;
        Ok(nonce)
    }

    /// The supervisor of the command, once there is one.
    pub(crate) fn supervisor(&self) -> Option<ProcessIdentity> {
        self.read("supervisor")
    }

    /// Sets the supervisor of the command; `false` if there is one already.
    ///
    /// The file appears complete or not at all, and once.
    pub(crate) fn set_supervisor(&self, supervisor: &ProcessIdentity) -> Result<bool, StateError> {
        let draft = format!("supervisor.{}", supervisor.pid);
        let failed = self.failed("supervisor");
        fs::write(self.file(&draft), encode(supervisor)).map_err(&failed)?;
        let made = fs::hard_link(self.file(&draft), self.file("supervisor"));
        let _ = fs::remove_file(self.file(&draft));
        match made {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// The command's main process, once it was started.
    pub(crate) fn main(&self) -> Option<ProcessIdentity> {
        self.read("main")
    }

    pub(crate) fn set_main(&self, main: &ProcessIdentity) -> Result<(), StateError> {
        self.write("main", main)
    }

    /// The id of the last attach action.
    pub(crate) fn attach(&self) -> Option<ActionId> {
        self.read("attach")
    }

    pub(crate) fn set_attach(&self, id: &ActionId) -> Result<(), StateError> {
        self.write("attach", id)
    }

    pub(crate) fn ending(&self) -> Option<Ending> {
        self.read("ending")
    }

    pub(crate) fn set_ending(&self, ending: &Ending) -> Result<(), StateError> {
        self.write("ending", ending)
    }

    pub(crate) fn is_reported(&self) -> bool {
        self.file("reported").exists()
    }

    pub(crate) fn set_reported(&self) -> Result<(), StateError> {
        self.write("reported", &true)
    }

    /// The file for the reason why a command could not start.
    pub(crate) fn failure(&self) -> PathBuf {
        self.file("failure")
    }

    /// Whether the start of a command is over, successful or not.
    pub(crate) fn has_begun(&self) -> bool {
        self.file("begun").exists()
    }

    pub(crate) fn set_begun(&self) -> Result<(), StateError> {
        self.write("begun", &true)
    }

    /// Whether the service has confirmed the whole log.
    pub(crate) fn is_delivered(&self) -> bool {
        self.file("delivered").exists()
    }

    pub(crate) fn set_delivered(&self) -> Result<(), StateError> {
        self.write("delivered", &true)
    }

    /// The volumes that are mounted in this machine.
    pub(crate) fn volumes(&self) -> Option<Vec<Volume>> {
        self.read("volumes")
    }

    pub(crate) fn set_volumes(&self, volumes: &[Volume]) -> Result<(), StateError> {
        self.write("volumes", &volumes)
    }

    /// Creates a directory for a shell. The caller removes it.
    pub(crate) fn create_shell(&self, number: u64) -> Result<Self, StateError> {
        let name = format!("shell-{number}");
        let failed = self.failed(&name);
        DirBuilder::new().mode(0o700).create(self.file(&name)).map_err(failed)?;
        Ok(Self { path: self.file(&name) })
    }

    /// Removes the directories of an earlier agent's shells.
    pub(crate) fn remove_shells(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b"shell-") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Forgets the job.
    ///
    /// The payload goes first. An agent that finds files without a payload forgets the rest.
    pub(crate) fn forget_job(&self) -> Result<(), StateError> {
        self.remove_files(&[
            "execute",
            "attach",
            "begun",
            "delivered",
            "failure",
            "reported",
            "ending",
            "main",
            "supervisor",
        ])
    }

    /// Forgets the agent's session and nonce, and a job that was reported.
    ///
    /// A snapshot that is taken now can be restored many times. Each restored agent needs a nonce
    /// of its own.
    pub(crate) fn forget_agent(&self) -> Result<(), StateError> {
        if self.is_reported() {
            self.forget_job()?;
        }
        self.remove_files(&["session", "nonce"])
    }

    fn remove_files(&self, names: &[&str]) -> Result<(), StateError> {
        for name in names {
            match fs::remove_file(self.file(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.failed(name)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the directory with everything in it.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.path);
    }

    /// Watches for files that appear from now on.
    pub(crate) fn watch(&self) -> Result<StateWatch, StateError> {
        let failed = |error: rustix::io::Errno| self.failed("")(error.into());
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(failed)?;
        let flags = WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::ONLYDIR;
        inotify::add_watch(&queue, &self.path, flags).map_err(failed)?;
        Ok(StateWatch { queue: Descriptor::new(queue).map_err(self.failed(""))? })
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.file(name)).ok()?).ok()
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        replace_unsynced(&self.file(name), &encode(value), 0o600).map_err(self.failed(name))
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn default_path() -> PathBuf {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return "/run/metaservice".into();
    }
    let runtime = env::var_os("XDG_RUNTIME_DIR").filter(|path| Path::new(path).is_absolute());
    let in_tmp = || OsString::from(format!("/tmp/metaservice-guest-{}", uid.as_raw()));
    runtime.map_or_else(|| in_tmp().into(), |path| Path::new(&path).join("metaservice-guest"))
}

/// Reports files that appear in a [`StateDirectory`].
#[derive(Debug)]
pub(crate) struct StateWatch {
    queue: Descriptor,
}

impl StateWatch {
    /// Completes when a file has appeared since the watch was made or this last completed.
    pub(crate) async fn changed(&self) {
        loop {
            let Ok(mut ready) = self.queue.readable().await else { return };
            let mut events = [0; 4096];
            let read = ready.try_io(|queue| Ok(rustix::io::read(queue, &mut events)?));
            if !matches!(read, Err(_would_block)) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use metaservice_protocol::Reason;

    use super::*;

    fn new_state() -> (tempfile::TempDir, StateDirectory) {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(Some(parent.path().join("state"))).unwrap().0;
        (parent, state)
    }

    #[test]
    fn the_directory_is_private_and_has_one_agent() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let (state, lock) = StateDirectory::open(Some(path.clone())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert!(matches!(StateDirectory::open(Some(path.clone())), Err(StateError::Busy(_))));
        drop(lock);
        assert_eq!(StateDirectory::open(Some(path.clone())).unwrap().0, state);

        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(StateDirectory::open(Some(link)), Err(StateError::NotOwned(_))));
        let missing = parent.path().join("a/b");
        assert!(matches!(StateDirectory::open(Some(missing)), Err(StateError::Io { .. })));
    }

    #[test]
    fn what_was_written_is_read_and_the_supervisor_is_set_once() {
        let (_parent, state) = new_state();
        assert_eq!((state.execute(), state.ending(), state.supervisor()), (None, None, None));
        let execute = Execute { command: vec!["a".into()], ..Execute::default() };
        state.set_execute(&execute).unwrap();
        let ending = Ending { exit_code: Some(3), ..Ending::new(Reason::Exited) };
        state.set_ending(&ending).unwrap();
        let supervisor = ProcessIdentity { pid: 4, start: 5, boot: "b".into() };
        assert!(state.set_supervisor(&supervisor).unwrap());
        assert!(!state.set_supervisor(&ProcessIdentity { pid: 6, ..supervisor.clone() }).unwrap());
        assert_eq!(state.execute(), Some(execute));
        assert_eq!((state.ending(), state.supervisor()), (Some(ending), Some(supervisor)));
        assert!(!state.is_reported());
        state.set_reported().unwrap();
        assert!(state.is_reported());
        state.forget_job().unwrap();
        assert!(state.execute().is_none() && state.supervisor().is_none() && !state.is_reported());
    }

    #[test]
    fn forgetting_the_agent_forgets_a_reported_job_and_keeps_a_running_one() {
        let (_parent, state) = new_state();
        let execute = Execute { command: vec!["a".into()], ..Execute::default() };
        let grant = SessionGrant { secret: "s".into(), ..SessionGrant::default() };
        for over in [false, true] {
            let nonce = state.nonce().unwrap();
            state.set_session(&grant).unwrap();
            state.set_execute(&execute).unwrap();
            if over {
                state.set_reported().unwrap();
            }
            state.forget_agent().unwrap();
            assert!(state.session().is_none() && state.nonce().unwrap() != nonce);
            assert_eq!(state.execute().is_none(), over);
        }
    }

    #[tokio::test]
    async fn a_watch_notices_an_ending() {
        let (_parent, state) = new_state();
        let watch = state.watch().unwrap();
        state.set_ending(&Ending::new(Reason::Lost)).unwrap();
        watch.changed().await;
        assert!(state.ending().is_some());
    }
}
