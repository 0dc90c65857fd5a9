//! What a service has promised its guest, kept in a folder: another process goes on from there.
//!
//! ```text
//!   folder/lock         held by the service that uses the folder
//!   folder/state.json   what was promised; replaced as a whole, never written in place
//!   folder/log          the log; what is behind the length in `state.json` was never confirmed
//! ```
//!
//! The guest is told "yes" only when the disk has it: first the log's bytes, then the file that
//! counts them, then the answer. A process that dies in between has promised nothing: the guest
//! asks again, and finds either what was or what is.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use metaservice_protocol::{ActionId, Ending, Execute};
use serde::{Deserialize, Serialize};

use crate::disk::DiskWork;
use crate::result::JobResult;

/// The layout of the folder.
const LAYOUT: u32 = 1;

const STATE: &str = "state.json";

/// Why a folder cannot be gone on from.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be made, read or written.
    #[error("the folder cannot be used")]
    Io(#[from] io::Error),
    /// Another service uses it.
    #[error("another service is using it")]
    InUse,
    /// It belongs to a job of another command, environment or terminal.
    #[error("it belongs to another job: go on by the same command line, or use another folder")]
    OtherJob,
    /// Its contents are not what a service has left there.
    #[error("what is in it was not left by a service: {0}")]
    Damaged(String),
}

/// What has been promised.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Promised {
    layout: u32,
    execute: Execute,
    /// When the command was fetched first, in milliseconds since 1970.
    fetched_ms: Option<u64>,
    pub(crate) log: PromisedLog,
    pub(crate) session: Option<PromisedSession>,
    result: Option<PromisedResult>,
    /// The instance that a cloud image was told it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
}

/// How far the log is safe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PromisedLog {
    pub(crate) length: u64,
    /// How far each numbered log has come.
    pub(crate) received: BTreeMap<ActionId, u64>,
}

/// Whose the job is.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PromisedSession {
    pub(crate) nonce: ActionId,
    pub(crate) secret: String,
}

#[derive(Clone, Serialize, Deserialize)]
struct PromisedResult {
    success: bool,
    ending: Option<Ending>,
}

impl Promised {
    pub(crate) fn fetched(&self) -> Option<SystemTime> {
        self.fetched_ms.map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
    }

    pub(crate) fn fetch(&mut self, now: SystemTime) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.fetched_ms.get_or_insert(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    }

    pub(crate) fn result(&self) -> Option<JobResult> {
        let PromisedResult { success, ending } = self.result.clone()?;
        Some(JobResult { success, ending })
    }

    pub(crate) fn resolve(&mut self, JobResult { success, ending }: JobResult) {
        self.result.get_or_insert(PromisedResult { success, ending });
    }
}

/// The folder of one job, for as long as its service lives.
pub(crate) struct Store {
    folder: PathBuf,
    promised: Mutex<Promised>,
    work: DiskWork,
    _lock: File,
}

impl Store {
    /// Takes the folder, and makes it if need be, for the job that runs `execute`.
    pub(crate) fn open(
        folder: &Path,
        execute: &Execute,
        work: DiskWork,
    ) -> Result<Self, StateError> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {
                // The folder's own name, too, outlives the machine.
                let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
                File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        let lock = private().write(true).create(true).truncate(false).open(folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let begin = || Promised { layout: LAYOUT, execute: execute.clone(), ..Promised::default() };
        let promised = Mutex::new(find(folder, execute)?.unwrap_or_else(begin));
        let store = Self { folder: folder.to_owned(), promised, work, _lock: lock };
        store.write(&store.promised())?;
        Ok(store)
    }

    /// Whether the folder is of the job that runs `execute`, or of none yet. What is promised is
    /// replaced as a whole, so this needs no lock.
    pub(crate) fn check(folder: &Path, execute: &Execute) -> Result<(), StateError> {
        find(folder, execute).map(drop)
    }

    /// What has been promised.
    pub(crate) fn promised(&self) -> MutexGuard<'_, Promised> {
        // What is behind the lock changes all at once.
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the folder's files are written.
    pub(crate) fn work(&self) -> DiskWork {
        self.work
    }

    /// The id of the instance: the one that was told before, or else this one from now on.
    pub(crate) fn instance(&self, fresh: &str) -> Result<String, StateError> {
        let mut promised = self.promised();
        let id = promised.instance.get_or_insert_with(|| fresh.to_owned()).clone();
        self.write(&promised)?;
        Ok(id)
    }

    /// The log's file, without what was never confirmed.
    pub(crate) fn log(&self) -> Result<File, StateError> {
        let path = self.folder.join("log");
        let file = private().read(true).append(true).create(true).open(path)?;
        let length = self.promised().log.length;
        if file.metadata()?.len() < length {
            return Err(StateError::Damaged(format!("its log is shorter than {length} bytes")));
        }
        file.set_len(length)?;
        file.sync_all()?;
        File::open(&self.folder)?.sync_all()?;
        Ok(file)
    }

    /// Promises something. When this returns, the disk has it; dropped, it may have.
    pub(crate) async fn promise(
        self: &Arc<Self>,
        what: impl FnOnce(&mut Promised) + Send + 'static,
    ) -> io::Result<()> {
        let store = Arc::clone(self);
        let work = move || {
            let mut promised = store.promised();
            let mut next = promised.clone();
            what(&mut next);
            store.write(&next)?;
            *promised = next;
            Ok(())
        };
        self.work.run(work).await
    }

    fn write(&self, promised: &Promised) -> io::Result<()> {
        let next = self.folder.join("state.next");
        let mut file = private().write(true).create(true).truncate(true).open(&next)?;
        file.write_all(&serde_json::to_vec(promised)?)?;
        file.sync_all()?;
        std::fs::rename(&next, self.folder.join(STATE))?;
        File::open(&self.folder)?.sync_all()
    }
}

/// What the folder's service has promised, if there was one.
fn find(folder: &Path, execute: &Execute) -> Result<Option<Promised>, StateError> {
    match std::fs::read(folder.join(STATE)) {
        Ok(json) => read(&json, execute).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read(json: &[u8], execute: &Execute) -> Result<Promised, StateError> {
    let damaged = |what: &dyn std::fmt::Display| StateError::Damaged(format!("{STATE}: {what}"));
    let promised: Promised = serde_json::from_slice(json).map_err(|error| damaged(&error))?;
    if promised.layout != LAYOUT {
        return Err(damaged(&format!("layout {} is not {LAYOUT}", promised.layout)));
    }
    if promised.execute != *execute {
        return Err(StateError::OtherJob);
    }
    Ok(promised)
}

/// What is kept may be secret, and is its owner's.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execute(command: &str) -> Execute {
        Execute { command: vec![command.to_owned()], ..Execute::default() }
    }

    #[tokio::test]
    async fn what_was_promised_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        let job = execute("true");
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1234);
        let log = PromisedLog { length: 3, received: [(id("s"), 7)].into() };
        {
            let store = Arc::new(Store::open(&folder, &job, DiskWork::Threads).unwrap());
            assert!(matches!(
                Store::open(&folder, &job, DiskWork::Threads),
                Err(StateError::InUse)
            ));
            store.log().unwrap().write_all(b"abcdef").unwrap();
            let kept = log.clone();
            let promise = store.promise(move |promised| {
                promised.fetch(now);
                promised.fetch(now + Duration::from_secs(1));
                promised.log = kept;
                promised.resolve(JobResult { success: false, ending: None });
                promised.resolve(JobResult { success: true, ending: None });
            });
            promise.await.unwrap();
        }
        // A process that died while it wrote.
        std::fs::write(folder.join("state.next"), "{").unwrap();
        let other = Store::open(&folder, &execute("false"), DiskWork::Threads);
        assert!(matches!(other, Err(StateError::OtherJob)));
        let store = Store::open(&folder, &job, DiskWork::Threads).unwrap();
        assert_eq!(store.promised().fetched(), Some(now));
        assert_eq!(store.promised().result(), Some(JobResult { success: false, ending: None }));
        assert_eq!(store.promised().log, log);
        drop(store.log().unwrap());
        assert_eq!(std::fs::read(folder.join("log")).unwrap(), b"abc");
        std::fs::write(folder.join("log"), "ab").unwrap();
        assert!(matches!(store.log(), Err(StateError::Damaged(_))));
    }

    #[test]
    fn what_a_service_has_not_left_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let job = execute("true");
        for json in ["", "{}", "[1]", r#"{"layout":2,"execute":{},"log":{}}"#] {
            std::fs::write(folder.path().join(STATE), json).unwrap();
            let refused = Store::open(folder.path(), &job, DiskWork::Threads);
            assert!(matches!(refused, Err(StateError::Damaged(_))), "{json}");
            assert_eq!(std::fs::read_to_string(folder.path().join(STATE)).unwrap(), json);
        }
        let none = Store::open(&folder.path().join("not/there"), &job, DiskWork::Threads);
        assert!(matches!(none, Err(StateError::Io(_))));
    }

    #[test]
    fn a_check_takes_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        let job = execute("true");
        Store::check(&folder, &job).unwrap();
        assert!(!folder.exists());
        let store = Store::open(&folder, &job, DiskWork::Threads).unwrap();
        Store::check(&folder, &job).unwrap();
        let other = Store::check(&folder, &execute("false"));
        assert!(matches!(other, Err(StateError::OtherJob)));
        drop(store);
        std::fs::write(folder.join(STATE), "{").unwrap();
        assert!(matches!(Store::check(&folder, &job), Err(StateError::Damaged(_))));
    }

    fn id(text: &str) -> ActionId {
        ActionId::parse(text).unwrap()
    }
}
