//! The cache of files that take time to make, by what they were made of.
//!
//! Owns atomic writing, checking and pruning. A file is on the disk before it gets its name, and is
//! checked before it is used. If two processes make the same file at once, both get the same
//! content. If the cache cannot be written, the file is a temporary one.
//!
//! | path | content |
//! | --- | --- |
//! | `KEY.SUFFIX` | the file |
//! | `.KEY.SUFFIX.record` | its size, inode, ctime and digest; its own mtime is the time of the last use |
//!
//! To digest 60 MB takes 50 ms to 300 ms, and a start from a snapshot takes 0.4 s. So the digest is
//! compared only if another attribute differs. The kernel sets the ctime at each write, rename and
//! change of attributes, and nothing else can set it. It does not reveal a disk that returns other
//! bytes than were written.

pub(crate) mod boot_file;
pub(crate) mod key;
mod place;

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use metaservice_private::bases;
use metaservice_private::{Directory, Location, PartialFile, PrivateError, hex, sweep};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::boot_file::{BootFile, CacheNotice};
use self::key::Key;
pub(crate) use self::place::trusted;

/// How many files a directory of the cache keeps: the most recently used ones.
const KEPT_FILES: usize = 8;

/// A file that was used within this time is kept in any case: a machine may be about to read it.
const KEPT_TIME: Duration = Duration::from_secs(10 * 60);

/// The largest record.
const MAX_RECORD: u64 = 4096;

/// The prefix of temporary files of earlier versions.
const EARLIER: &str = ".making-";

/// Finds the file for `key` in `location`, or makes it there. If that is impossible, makes a
/// temporary file.
///
/// # Errors
/// If the file cannot be made, or cannot be written anywhere.
pub(crate) fn get_or_make<E: From<io::Error>>(
    location: &Location,
    key: Key,
    suffix: &str,
    make: impl Fn(&mut dyn Write) -> Result<(), E>,
) -> Result<BootFile, E> {
    let name = key.name(suffix);
    let directory = match location.open() {
        Ok(directory) => directory,
        Err(error) => return make_temporary(&error, &make),
    };
    let path = directory.path().join(&name);
    let damaged = match look(&directory, &name) {
        Look::Fit => return Ok(path.into()),
        Look::None => false,
        Look::Damaged => true,
    };
    match keep(&directory, &name, &make) {
        Ok(()) => {
            prune(&directory);
            let notice = damaged.then(|| CacheNotice::Damaged(path.clone()));
            Ok(BootFile { path, notice, _temporary: None })
        }
        Err(Failed::Make(error)) => Err(error),
        Err(Failed::Write(source)) => {
            let path = directory.path().to_owned();
            make_temporary(&PrivateError::Io { path, source }, &make)
        }
    }
}

/// The state of a cached file.
enum Look {
    Fit,
    None,
    Damaged,
}

fn look(directory: &Directory, name: &str) -> Look {
    let mut file = match directory.read(name) {
        Ok(Some(file)) => file,
        Ok(None) => return Look::None,
        // A file that other users could have written counts as damaged.
        Err(_) => return Look::Damaged,
    };
    let record = match directory.read(record_name(name)) {
        Ok(Some(record)) => record,
        // The maker was killed, or was an earlier version.
        Ok(None) => return Look::None,
        Err(_) => return Look::Damaged,
    };
    let mut text = Vec::new();
    let noted = (&record).take(MAX_RECORD).read_to_end(&mut text);
    let noted: Value =
        noted.map(|_| serde_json::from_slice(&text).unwrap_or_default()).unwrap_or_default();
    let Ok(metadata) = file.metadata() else { return Look::Damaged };
    if noted["file"] == description(&metadata) {
        // The time of the last use, for pruning.
        let _ = record.set_modified(SystemTime::now());
        return Look::Fit;
    }
    // A file with the same size may have been copied or moved together with the cache: compare
    // digests.
    if noted["file"][0] != json!(metadata.size()) {
        return Look::Damaged;
    }
    match digest(&mut file) {
        Ok(digest) if noted["digest"] == digest => {
            let _ = write_record(directory, name, &metadata, &digest);
            Look::Fit
        }
        _ => Look::Damaged,
    }
}

/// The digest of the rest of a file.
fn digest(file: &mut File) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&digest.finalize())),
            Ok(count) => digest.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The attributes by which a change is noticed, without reading the file.
fn description(metadata: &fs::Metadata) -> Value {
    json!([metadata.size(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()])
}

fn record_name(name: &str) -> String {
    format!(".{name}.record")
}

/// Why a file is not kept.
enum Failed<E> {
    /// It cannot be made.
    Make(E),
    /// It cannot be written here.
    Write(io::Error),
}

fn keep<E: From<io::Error>>(
    directory: &Directory,
    name: &str,
    make: impl Fn(&mut dyn Write) -> Result<(), E>,
) -> Result<(), Failed<E>> {
    sweep(directory.as_fd());
    let begin = || PartialFile::new(directory.as_fd().try_clone_to_owned()?, 0o600);
    let partial = begin().map_err(Failed::Write)?;
    let digest = fill(partial.file(), make)?;
    let finish = || {
        let file = partial.file().try_clone()?;
        file.sync_all()?;
        partial.keep(name.as_ref())?;
        directory.sync()?;
        // The file has its name now, so its ctime is final.
        write_record(directory, name, &file.metadata()?, &digest)
    };
    finish().map_err(Failed::Write)
}

/// Writes a file, and returns its digest.
fn fill<E: From<io::Error>>(
    file: &File,
    make: impl Fn(&mut dyn Write) -> Result<(), E>,
) -> Result<String, Failed<E>> {
    let watched = Watched { file, digest: Sha256::new(), failed: None };
    let mut output = BufWriter::with_capacity(1 << 20, watched);
    let made = make(&mut output).and_then(|()| Ok(output.flush()?));
    let (watched, _) = output.into_parts();
    match (made, watched.failed) {
        (_, Some(errno)) => Err(Failed::Write(io::Error::from_raw_os_error(errno))),
        (Err(error), None) => Err(Failed::Make(error)),
        (Ok(()), None) => Ok(hex(&watched.digest.finalize())),
    }
}

/// A file that tells write errors of its own from errors of the content.
struct Watched<'a> {
    file: &'a File,
    digest: Sha256,
    failed: Option<i32>,
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.failed = error.raw_os_error();
            }
        })?;
        self.digest.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_record(
    directory: &Directory,
    name: &str,
    metadata: &fs::Metadata,
    digest: &str,
) -> io::Result<()> {
    let partial = PartialFile::new(directory.as_fd().try_clone_to_owned()?, 0o600)?;
    let record = json!({ "file": description(metadata), "digest": digest });
    partial.file().write_all(record.to_string().as_bytes())?;
    partial.file().sync_all()?;
    partial.keep(record_name(name).as_ref())
}

fn make_temporary<E: From<io::Error>>(
    why: &PrivateError,
    make: impl Fn(&mut dyn Write) -> Result<(), E>,
) -> Result<BootFile, E> {
    let directory = bases::temporary_for_names().map_err(io::Error::other)?;
    let parent = File::open(&directory)?;
    sweep(parent.as_fd());
    let partial = PartialFile::named(parent.into(), 0o600)?;
    fill(partial.file(), make).map_err(|failed| match failed {
        Failed::Make(error) => error,
        Failed::Write(error) => error.into(),
    })?;
    let (path, why) = match why {
        PrivateError::Io { path, source } => (path.clone(), source.to_string()),
        PrivateError::NotPrivate { path, cause } => (path.clone(), format!("it {cause}")),
    };
    Ok(BootFile {
        path: directory.join(partial.name().unwrap_or_default()),
        notice: Some(CacheNotice::Unwritable { path, why }),
        _temporary: Some(Arc::new(partial)),
    })
}

/// Removes the least recently used files. A file that cannot be removed stays.
fn prune(directory: &Directory) {
    let modified = |name: &Path| fs::metadata(directory.path().join(name))?.modified();
    let now = SystemTime::now();
    let is_old = |used: SystemTime| now.duration_since(used).is_ok_and(|age| age > KEPT_TIME);
    let mut files: Vec<(SystemTime, String)> = Vec::new();
    for name in directory.names().unwrap_or_default() {
        let Some(name) = name.to_str() else { continue };
        if name.starts_with('.') {
            let owner = name.strip_prefix('.').and_then(|name| name.strip_suffix(".record"));
            let of_none = owner.is_some_and(|owner| !directory.path().join(owner).exists());
            if (name.starts_with(EARLIER) || of_none) && modified(name.as_ref()).is_ok_and(is_old) {
                let _ = directory.remove(name);
            }
            continue;
        }
        let used = modified(record_name(name).as_ref()).or_else(|_| modified(name.as_ref()));
        if let Ok(used) = used {
            files.push((used, name.to_owned()));
        }
    }
    files.sort_by(|one, other| other.cmp(one));
    for (used, name) in files.into_iter().skip(KEPT_FILES) {
        if is_old(used) {
            let _ = directory.remove(&name);
            let _ = directory.remove(record_name(&name));
        }
    }
}

#[cfg(test)]
mod tests;
