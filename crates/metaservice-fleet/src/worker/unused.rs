//! The directories of workers that do not come back.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::tidy;
use super::types::attempts;

/// Removes the directories of workers below `workers`, except `own`, that no process uses and that
/// did not change for so long. Returns how many. Blocks.
///
/// # Errors
/// When one of them cannot be read or removed. Those before are removed.
pub fn remove_unused(workers: &Path, own: &Path, after: Duration) -> io::Result<usize> {
    let entries = match fs::read_dir(workers) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut removed = 0;
    for entry in entries {
        let path = entry?.path();
        if path != own && remove_one(&path, after)? {
            removed += 1;
        }
    }
    Ok(removed)
}

fn remove_one(directory: &Path, after: Duration) -> io::Result<bool> {
    // What has no lock is no directory of a worker.
    let lock = match File::open(directory.join("lock")) {
        Ok(lock) => lock,
        Err(_) => return Ok(false),
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let parts = [directory.to_owned(), attempts(directory), directory.join("run")];
    let Some(last) = parts.iter().filter_map(|path| changed(path).ok()).max() else {
        return Ok(false);
    };
    // A clock that was set back makes nothing old.
    let is_old = SystemTime::now().duration_since(last).is_ok_and(|age| age >= after);
    if is_old {
        tidy::remove(directory)?;
    }
    Ok(is_old)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Duration = Duration::from_hours(7 * 24);

    #[test]
    fn only_what_no_worker_uses_and_is_old_is_removed() {
        let workers = tempfile::tempdir().unwrap();
        let make = |name: &str, age: Duration| {
            let directory = workers.path().join(name);
            fs::create_dir_all(attempts(&directory)).unwrap();
            let lock = File::create(directory.join("lock")).unwrap();
            fs::write(directory.join("run"), "r").unwrap();
            let then = SystemTime::now() - age;
            for part in [directory.join("run"), attempts(&directory), directory.clone()] {
                File::open(part).unwrap().set_modified(then).unwrap();
            }
            lock
        };
        let old = WEEK + Duration::from_mins(1);
        make("old", old);
        make("own", old);
        make("new", WEEK - Duration::from_mins(1));
        let used = make("used", old);
        used.lock().unwrap();
        fs::create_dir(workers.path().join("other")).unwrap();
        let other = File::open(workers.path().join("other")).unwrap();
        other.set_modified(SystemTime::now() - old).unwrap();
        let own = workers.path().join("own");
        assert_eq!(remove_unused(workers.path(), &own, WEEK).unwrap(), 1);
        let mut left: Vec<_> =
            fs::read_dir(workers.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["new", "other", "own", "used"]);
        assert_eq!(remove_unused(&workers.path().join("none"), &own, WEEK).unwrap(), 0);
    }
}
