//! The folder in which a job outlives its agent.
//!
//! Owns the files, their atomic appearance and the folder's privacy; what they mean for a
//! restarted agent is decided in [`job`](crate::job).
//!
//! | file | written by | says |
//! | --- | --- | --- |
//! | `agent` | agent | locked while an agent works here |
//! | `boot` | agent | during which boot the rest was written |
//! | `nonce` | agent | the word by which it claims jobs |
//! | `session` | agent | what the service has granted: a secret |
//! | `execute` | agent | the job that the rest is about |
//! | `supervisor` | supervisor | who runs the command; made once, before the command is |
//! | `main` | supervisor | which process the command is, for signals |
//! | `failure` | supervisor's copy | why the command could not be started, empty once it was |
//! | `begun` | supervisor | the command was started, or `failure` says why not; only where that is awaited |
//! | `ending` | supervisor | how the command ended, once its whole tree is gone |
//! | `delivered` | supervisor | the service has confirmed the whole log |
//! | `reported` | agent | the service has accepted the result |
//! | `shell-*` | agent | a folder of the same kind for each shell |
//!
//! Everything is meant to be gone after a reboot, so nothing is synchronised to a disk. What did
//! survive one is recognised by its boot, and removed: it was another machine's job.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, io};

use crate::system::descriptor::Descriptor;
use crate::system::processes;
use metaservice_private::{hex, replace};
use metaservice_protocol::{ActionId, Ending, Execute, SessionGrant};
use rustix::fs::FlockOperation;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long another agent may take to be gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// A state folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be made, or something in it cannot be read or written.
    #[error("cannot use the state folder {}", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not a folder of the agent's own.
    #[error("the state folder {} is not a folder that belongs to this user", .0.display())]
    Foreign(PathBuf),
    /// Another agent uses it.
    #[error("another agent works in the state folder {}", .0.display())]
    Busy(PathBuf),
}

/// A process that others may look for: who supervises a command, or the command itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) pid: i32,
    /// In clock ticks after boot: a process id is used again, the pair of both is not.
    pub(crate) start: u64,
    pub(crate) boot: String,
}

impl Claim {
    /// A name that no other process of any boot has.
    pub(crate) fn as_id(&self) -> Option<ActionId> {
        let Self { pid, start, boot } = self;
        ActionId::parse(&format!("{}-{pid}-{start}", boot.trim())).ok()
    }
}

/// A folder for the state of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder {
    path: PathBuf,
}

/// Held by the one agent that works in a folder. Let go of by the kernel when it dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Folder {
    /// The folder at a path that was checked before.
    pub(crate) const fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The folder of another agent, to look into.
    pub(crate) fn of(path: Option<PathBuf>) -> Self {
        Self { path: path.unwrap_or_else(default_path) }
    }

    /// Makes the folder where it is missing, checks that nobody else can write to it, and
    /// locks it for this agent.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<(Self, Lock), StateError> {
        Self::open_by(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// As [`open`](Self::open), for an agent that another one may just have made room for: one
    /// that was killed while it started a process lives on in that for a moment.
    pub(crate) async fn open_soon(path: Option<PathBuf>) -> Result<(Self, Lock), StateError> {
        let busy = match Self::open(path.clone()) {
            Err(StateError::Busy(busy)) => busy,
            opened => return opened,
        };
        let waiting = spawn_blocking(move || Self::open_by(path, FlockOperation::LockExclusive));
        match timeout(LOCK_PATIENCE, waiting).await {
            Ok(Ok(opened)) => opened,
            _ => Err(StateError::Busy(busy)),
        }
    }

    fn open_by(
        path: Option<PathBuf>,
        operation: FlockOperation,
    ) -> Result<(Self, Lock), StateError> {
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
            return Err(StateError::Foreign(path));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let folder = Self { path: path.clone() };
        let file = File::create(folder.file("agent")).map_err(failed)?;
        match rustix::fs::flock(&file, operation) {
            Ok(()) => {
                folder.begin_boot()?;
                Ok((folder, Lock { _file: file }))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::Busy(path)),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Removes what is of another boot: files and folders, whatever they are.
    fn begin_boot(&self) -> Result<(), StateError> {
        let boot = processes::boot();
        if self.read::<String>("boot").is_some_and(|before| before != boot) {
            for entry in fs::read_dir(&self.path).map_err(self.failed(""))?.flatten() {
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let path = entry.path();
                let removed = match entry.file_name().to_str() {
                    Some("agent") => Ok(()),
                    _ if is_folder => fs::remove_dir_all(path),
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

    /// What the service has granted to an agent that works here.
    pub(crate) fn session(&self) -> Option<SessionGrant> {
        self.read("session")
    }

    pub(crate) fn set_session(&self, grant: &SessionGrant) -> Result<(), StateError> {
        self.write("session", grant)
    }

    /// The word by which agents of this folder claim a job: made once, of random bits.
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

    pub(crate) fn claim(&self) -> Option<Claim> {
        self.read("supervisor")
    }

    /// Makes a supervisor the one of this folder; `false` when there is one already.
    /// The file appears whole or not at all, and once.
    pub(crate) fn make_claim(&self, claim: &Claim) -> Result<bool, StateError> {
        let draft = format!("supervisor.{}", claim.pid);
        let failed = self.failed("supervisor");
        fs::write(self.file(&draft), encode(claim)).map_err(&failed)?;
        let made = fs::hard_link(self.file(&draft), self.file("supervisor"));
        let _ = fs::remove_file(self.file(&draft));
        match made {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// The command's main process, once it was started.
    pub(crate) fn main(&self) -> Option<Claim> {
        self.read("main")
    }

    pub(crate) fn set_main(&self, main: &Claim) -> Result<(), StateError> {
        self.write("main", main)
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

    /// Where a command's start says why it failed.
    pub(crate) fn failure(&self) -> PathBuf {
        self.file("failure")
    }

    /// Whether the start of a command that is awaited is over, well or not.
    pub(crate) fn has_begun(&self) -> bool {
        self.file("begun").exists()
    }

    pub(crate) fn set_begun(&self) -> Result<(), StateError> {
        self.write("begun", &true)
    }

    /// Whether the log has been delivered to its end.
    pub(crate) fn is_delivered(&self) -> bool {
        self.file("delivered").exists()
    }

    pub(crate) fn set_delivered(&self) -> Result<(), StateError> {
        self.write("delivered", &true)
    }

    /// A fresh folder for a shell. The caller removes it.
    pub(crate) fn shell(&self, number: u64) -> Result<Self, StateError> {
        let name = format!("shell-{number}");
        let failed = self.failed(&name);
        DirBuilder::new().mode(0o700).create(self.file(&name)).map_err(failed)?;
        Ok(Self { path: self.file(&name) })
    }

    /// Removes what an earlier agent's shells have left.
    pub(crate) fn remove_shells(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b"shell-") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Forgets the job. Its payload goes first: without it the rest is nobody's, and an agent
    /// that finds a half-forgotten job forgets the rest.
    pub(crate) fn forget(&self) -> Result<(), StateError> {
        self.remove_files(&[
            "execute",
            "delivered",
            "failure",
            "reported",
            "ending",
            "main",
            "supervisor",
        ])
    }

    /// Forgets who works here, and a job that is over: a machine that is saved now goes on as many.
    pub(crate) fn forget_agent(&self) -> Result<(), StateError> {
        if self.is_reported() {
            self.forget()?;
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

    /// Removes the folder with all that is in it.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.path);
    }

    /// Notices files that appear from now on.
    pub(crate) fn watch(&self) -> Result<Watch, StateError> {
        let failed = |error: rustix::io::Errno| self.failed("")(error.into());
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(failed)?;
        let flags = WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::ONLYDIR;
        inotify::add_watch(&queue, &self.path, flags).map_err(failed)?;
        Ok(Watch { queue: Descriptor::new(queue).map_err(self.failed(""))? })
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.file(name)).ok()?).ok()
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        replace(&self.file(name), &encode(value), 0o600).map_err(self.failed(name))
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

/// Notices files that appear in a [`Folder`].
#[derive(Debug)]
pub(crate) struct Watch {
    queue: Descriptor,
}

impl Watch {
    /// Completes when something has appeared since the watch was made or this was last called.
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

    fn folder() -> (tempfile::TempDir, Folder) {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(Some(parent.path().join("state"))).unwrap().0;
        (parent, folder)
    }

    #[test]
    fn a_folder_is_private_and_has_one_agent() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let (folder, lock) = Folder::open(Some(path.clone())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert!(matches!(Folder::open(Some(path.clone())), Err(StateError::Busy(_))));
        drop(lock);
        assert_eq!(Folder::open(Some(path.clone())).unwrap().0, folder);

        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(Folder::open(Some(link)), Err(StateError::Foreign(_))));
        let missing = parent.path().join("a/b");
        assert!(matches!(Folder::open(Some(missing)), Err(StateError::Io { .. })));
    }

    #[test]
    fn what_was_written_is_read_and_a_claim_is_made_once() {
        let (_parent, folder) = folder();
        assert_eq!((folder.execute(), folder.ending(), folder.claim()), (None, None, None));
        let execute = Execute { command: vec!["a".into()], ..Execute::default() };
        folder.set_execute(&execute).unwrap();
        let ending = Ending { exit_code: Some(3), ..Ending::new(Reason::Exited) };
        folder.set_ending(&ending).unwrap();
        let claim = Claim { pid: 4, start: 5, boot: "b".into() };
        assert!(folder.make_claim(&claim).unwrap());
        assert!(!folder.make_claim(&Claim { pid: 6, ..claim.clone() }).unwrap());
        assert_eq!(folder.execute(), Some(execute));
        assert_eq!((folder.ending(), folder.claim()), (Some(ending), Some(claim)));
        assert!(!folder.is_reported());
        folder.set_reported().unwrap();
        assert!(folder.is_reported());
        folder.forget().unwrap();
        assert!(folder.execute().is_none() && folder.claim().is_none() && !folder.is_reported());
    }

    #[test]
    fn who_works_here_is_forgotten_with_what_is_over_and_not_with_what_runs() {
        let (_parent, folder) = folder();
        let execute = Execute { command: vec!["a".into()], ..Execute::default() };
        let grant = SessionGrant { secret: "s".into(), ..SessionGrant::default() };
        for over in [false, true] {
            let nonce = folder.nonce().unwrap();
            folder.set_session(&grant).unwrap();
            folder.set_execute(&execute).unwrap();
            if over {
                folder.set_reported().unwrap();
            }
            folder.forget_agent().unwrap();
            assert!(folder.session().is_none() && folder.nonce().unwrap() != nonce);
            assert_eq!(folder.execute().is_none(), over);
        }
    }

    #[tokio::test]
    async fn a_watch_notices_an_ending() {
        let (_parent, folder) = folder();
        let watch = folder.watch().unwrap();
        folder.set_ending(&Ending::new(Reason::Lost)).unwrap();
        watch.changed().await;
        assert!(folder.ending().is_some());
    }
}
