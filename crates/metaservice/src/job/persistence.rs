//! The state directory: everything that a service has acknowledged to its guest is persisted there,
//! and another process can take the job over.
//!
//! ```text
//!   DIRECTORY/lock         locked by the service that uses the directory
//!   DIRECTORY/state.json   the persisted state; replaced as a whole, never written in place
//!   DIRECTORY/log          the log; bytes after the length in `state.json` were never confirmed
//!   DIRECTORY/log.index    which output each byte is of, and when it arrived; may lack its end
//! ```
//!
//! The service acknowledges only what is on the disk: first the log's bytes are written, then the
//! file that counts them, then the response. If the process ends before the response, it has
//! acknowledged nothing: the guest sends its request again, and finds the old state or the new one.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use metaservice_private::{Directory, PrivateError, lock};
use metaservice_protocol::{ActionId, Ending, Execute};
use serde::{Deserialize, Serialize};

use crate::job::disk::DiskWork;
use crate::job::result::JobResult;

/// The layout of the directory.
const LAYOUT: u32 = 1;

const STATE: &str = "state.json";
const LOCK: &str = "lock";

/// Files that a service leaves if it is killed before it has written its state. The last one is of
/// an earlier version.
const LEFT_EARLY: [&str; 3] = [LOCK, "state.json.next", "state.next"];

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// It cannot be created, read or written.
    #[error("the directory cannot be used")]
    Io(#[from] io::Error),
    /// Other users can change it or one of its files, or have created them.
    #[error(transparent)]
    Private(PrivateError),
    /// It has other files than a service's state: the name of one.
    #[error("it is neither empty nor the state of a job: {0:?} is in it")]
    Occupied(String),
    /// Another service uses it.
    #[error("another service is using it")]
    InUse,
    /// It belongs to a job of another command, environment or terminal.
    #[error("it belongs to another job: use the same command line, or another directory")]
    OtherJob,
    /// Its content is not the state of a service.
    #[error("what is in it was not left by a service: {0}")]
    Damaged(String),
}

impl From<PrivateError> for StateError {
    fn from(error: PrivateError) -> Self {
        match error {
            PrivateError::Io { source, .. } => Self::Io(source),
            error @ PrivateError::NotPrivate { .. } => Self::Private(error),
        }
    }
}

/// The persisted state of a job.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Persisted {
    layout: u32,
    execute: Execute,
    /// When the command was fetched first, in milliseconds since 1970.
    fetched_ms: Option<u64>,
    pub(crate) log: PersistedLog,
    pub(crate) session: Option<PersistedSession>,
    result: Option<PersistedResult>,
    /// Whether a log of version 1 has a hole, or will have one if the service ends now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) log_hole: bool,
    /// The instance id that cloud images get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
}

/// How much of the log is safe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PersistedLog {
    pub(crate) length: u64,
    /// How much of each numbered log was received.
    pub(crate) received: BTreeMap<ActionId, u64>,
}

/// The agent that owns the job.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PersistedSession {
    pub(crate) nonce: ActionId,
    pub(crate) secret: String,
}

#[derive(Clone, Serialize, Deserialize)]
struct PersistedResult {
    success: bool,
    ending: Option<Ending>,
}

impl Persisted {
    pub(crate) fn fetched(&self) -> Option<SystemTime> {
        self.fetched_ms.map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
    }

    pub(crate) fn fetch(&mut self, now: SystemTime) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.fetched_ms.get_or_insert(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    }

    pub(crate) fn result(&self) -> Option<JobResult> {
        let PersistedResult { success, ending } = self.result.clone()?;
        Some(JobResult { success, ending })
    }

    pub(crate) fn resolve(&mut self, JobResult { success, ending }: JobResult) {
        self.result.get_or_insert(PersistedResult { success, ending });
    }
}

/// The state directory of one job, for as long as its service lives.
pub(crate) struct Store {
    directory: Directory,
    persisted: Mutex<Persisted>,
    work: DiskWork,
    _lock: File,
}

impl Store {
    /// Opens the directory for the job that runs `execute`, and creates it if it does not exist.
    pub(crate) fn open(path: &Path, execute: &Execute, work: DiskWork) -> Result<Self, StateError> {
        let (directory, made) = Directory::open_or_make(path)?;
        if made {
            // The directory's own name must be on the disk too.
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        refuse_occupied(&directory)?;
        let lock = directory.append(LOCK)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let begin =
            || Persisted { layout: LAYOUT, execute: execute.clone(), ..Persisted::default() };
        let persisted = Mutex::new(find(&directory, execute)?.unwrap_or_else(begin));
        let store = Self { directory, persisted, work, _lock: lock };
        store.write(&store.persisted())?;
        Ok(store)
    }

    /// Checks that the directory belongs to the job that runs `execute`, or to none. The state is
    /// replaced as a whole, so this needs no lock.
    pub(crate) fn check(path: &Path, execute: &Execute) -> Result<(), StateError> {
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            _ => {}
        }
        let directory = Directory::open(path)?;
        refuse_occupied(&directory)?;
        find(&directory, execute).map(drop)
    }

    /// The persisted state of a job.
    pub(crate) fn persisted(&self) -> MutexGuard<'_, Persisted> {
        lock(&self.persisted)
    }

    /// Where the files are written.
    pub(crate) fn work(&self) -> DiskWork {
        self.work
    }

    /// The persisted instance id, or else `fresh`, which is persisted.
    #[cfg(feature = "cloud")]
    pub(crate) fn instance(&self, fresh: &str) -> Result<String, StateError> {
        let mut persisted = self.persisted();
        let id = persisted.instance.get_or_insert_with(|| fresh.to_owned()).clone();
        self.write(&persisted)?;
        Ok(id)
    }

    /// The log file, without bytes that were never confirmed, and its index.
    pub(crate) fn log(&self) -> Result<(File, File), StateError> {
        let file = self.directory.update("log")?;
        let index = self.directory.update("log.index")?;
        let length = self.persisted().log.length;
        if file.metadata()?.len() < length {
            return Err(StateError::Damaged(format!("its log is shorter than {length} bytes")));
        }
        file.set_len(length)?;
        file.sync_all()?;
        self.directory.sync()?;
        Ok((file, index))
    }

    /// Changes the state. When this returns, the change is on the disk. If the future is dropped,
    /// the change may be on the disk.
    pub(crate) async fn persist(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Persisted) + Send + 'static,
    ) -> io::Result<()> {
        let store = Arc::clone(self);
        let work = move || {
            let mut persisted = store.persisted();
            let mut next = persisted.clone();
            change(&mut next);
            store.write(&next)?;
            *persisted = next;
            Ok(())
        };
        self.work.run(work).await
    }

    fn write(&self, persisted: &Persisted) -> io::Result<()> {
        Ok(self.directory.replace(STATE, &serde_json::to_vec(persisted)?)?)
    }
}

/// Refuses a directory with other files: a file `log` there would be truncated.
fn refuse_occupied(directory: &Directory) -> Result<(), StateError> {
    let names = directory.names()?;
    if names.iter().any(|name| name == STATE) {
        return Ok(());
    }
    match names.iter().find(|name| LEFT_EARLY.iter().all(|left| name != left)) {
        Some(name) => Err(StateError::Occupied(name.to_string_lossy().into_owned())),
        None => Ok(()),
    }
}

/// The state in the directory, if there is one.
fn find(directory: &Directory, execute: &Execute) -> Result<Option<Persisted>, StateError> {
    let Some(mut file) = directory.read(STATE)? else { return Ok(None) };
    let mut json = Vec::new();
    file.read_to_end(&mut json)?;
    read(&json, execute).map(Some)
}

fn read(json: &[u8], execute: &Execute) -> Result<Persisted, StateError> {
    let damaged = |what: &dyn std::fmt::Display| StateError::Damaged(format!("{STATE}: {what}"));
    let persisted: Persisted = serde_json::from_slice(json).map_err(|error| damaged(&error))?;
    if persisted.layout != LAYOUT {
        return Err(damaged(&format!("layout {} is not {LAYOUT}", persisted.layout)));
    }
    if !persisted.execute.is_same_job(execute) {
        return Err(StateError::OtherJob);
    }
    Ok(persisted)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn execute(command: &str) -> Execute {
        Execute { command: vec![command.to_owned()], ..Execute::default() }
    }

    #[tokio::test]
    async fn the_persisted_state_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("state");
        let job = execute("true");
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1234);
        let log = PersistedLog { length: 3, received: [(id("s"), 7)].into() };
        {
            let store = Arc::new(Store::open(&directory, &job, DiskWork::Threads).unwrap());
            assert!(matches!(
                Store::open(&directory, &job, DiskWork::Threads),
                Err(StateError::InUse)
            ));
            store.log().unwrap().0.write_all(b"abcdef").unwrap();
            let kept = log.clone();
            let promise = store.persist(move |persisted| {
                persisted.fetch(now);
                persisted.fetch(now + Duration::from_secs(1));
                persisted.log = kept;
                persisted.resolve(JobResult { success: false, ending: None });
                persisted.resolve(JobResult { success: true, ending: None });
            });
            promise.await.unwrap();
        }
        // A process was killed while it wrote.
        std::fs::write(directory.join("state.next"), "{").unwrap();
        let other = Store::open(&directory, &execute("false"), DiskWork::Threads);
        assert!(matches!(other, Err(StateError::OtherJob)));
        let store = Store::open(&directory, &job, DiskWork::Threads).unwrap();
        assert_eq!(store.persisted().fetched(), Some(now));
        assert_eq!(store.persisted().result(), Some(JobResult { success: false, ending: None }));
        assert_eq!(store.persisted().log, log);
        drop(store.log().unwrap());
        assert_eq!(std::fs::read(directory.join("log")).unwrap(), b"abc");
        std::fs::write(directory.join("log"), "ab").unwrap();
        assert!(matches!(store.log(), Err(StateError::Damaged(_))));
    }

    #[test]
    fn a_state_of_another_program_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let job = execute("true");
        for json in ["", "{}", "[1]", r#"{"layout":2,"execute":{},"log":{}}"#] {
            std::fs::write(directory.path().join(STATE), json).unwrap();
            let refused = Store::open(directory.path(), &job, DiskWork::Threads);
            assert!(matches!(refused, Err(StateError::Damaged(_))), "{json}");
            assert_eq!(std::fs::read_to_string(directory.path().join(STATE)).unwrap(), json);
        }
        let none = Store::open(&directory.path().join("not/there"), &job, DiskWork::Threads);
        assert!(matches!(none, Err(StateError::Io(_))));
    }

    #[test]
    fn what_others_could_have_made_is_refused_and_left_alone() {
        let here = tempfile::tempdir().unwrap();
        let at = |name: &str| here.path().join(name);
        let job = execute("true");
        std::fs::write(at("victim"), "precious").unwrap();
        let refused = |directory: &Path| {
            assert!(matches!(Store::check(directory, &job), Err(StateError::Private(_))));
            let opened = Store::open(directory, &job, DiskWork::Threads);
            assert!(matches!(opened, Err(StateError::Private(_))));
        };
        std::fs::create_dir(at("open")).unwrap();
        std::fs::set_permissions(at("open"), std::fs::Permissions::from_mode(0o777)).unwrap();
        symlink(at("victim"), at("open/log")).unwrap();
        refused(&at("open"));
        symlink(at("open"), at("link")).unwrap();
        refused(&at("link"));
        // A directory of the user in which others have placed links.
        for name in ["log", STATE, LOCK] {
            let _ = std::fs::remove_dir_all(at("own"));
            drop(Store::open(&at("own"), &job, DiskWork::Threads).unwrap().log().unwrap());
            let path = at("own").join(name);
            std::fs::remove_file(&path).unwrap();
            symlink(at("victim"), &path).unwrap();
            let opened = Store::open(&at("own"), &job, DiskWork::Threads);
            assert!(opened.and_then(|store| store.log()).is_err(), "{name}");
        }
        assert_eq!(std::fs::read(at("victim")).unwrap(), b"precious");
    }

    #[test]
    fn a_directory_of_other_things_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("log"), "precious").unwrap();
        let job = execute("true");
        let check = Store::check(directory.path(), &job);
        assert!(matches!(check, Err(StateError::Occupied(name)) if name == "log"));
        let opened = Store::open(directory.path(), &job, DiskWork::Threads);
        assert!(matches!(opened, Err(StateError::Occupied(_))));
        assert_eq!(std::fs::read(directory.path().join("log")).unwrap(), b"precious");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_check_takes_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("state");
        let job = execute("true");
        Store::check(&directory, &job).unwrap();
        assert!(!directory.exists());
        let store = Store::open(&directory, &job, DiskWork::Threads).unwrap();
        Store::check(&directory, &job).unwrap();
        let other = Store::check(&directory, &execute("false"));
        assert!(matches!(other, Err(StateError::OtherJob)));
        drop(store);
        std::fs::write(directory.join(STATE), "{").unwrap();
        assert!(matches!(Store::check(&directory, &job), Err(StateError::Damaged(_))));
    }

    fn id(text: &str) -> ActionId {
        ActionId::parse(text).unwrap()
    }
}
