//! Sockets with names: the job's control socket, and what `serve` listens on.
//!
//! Control sockets are in one folder of the user's, `NAME.sock` each. A socket that
//! nobody listens on any longer (its process was killed) is recognised by a refused
//! connection and removed; nothing else ever is.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use metaservice::control::Client;
use tokio::net::{UnixListener, UnixStream};

use crate::printer::Hint;

const SUFFIX: &str = ".sock";

/// A socket of ours with its name in the file system, which goes when this is dropped.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens at `path`, which only this user may open.
pub(crate) async fn bind(path: &Path) -> Result<(UnixListener, SocketFile)> {
    if is_live(path).await? {
        bail!("somebody is listening on {} already", path.display());
    }
    let cannot = || format!("cannot listen on {}", path.display());
    let listener = UnixListener::bind(path).with_context(cannot)?;
    let socket = SocketFile(path.to_owned());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(cannot)?;
    Ok((listener, socket))
}

/// Listens for those who want to control the job `name`.
pub(crate) async fn bind_control(name: &str) -> Result<(UnixListener, SocketFile)> {
    let path = folder()?.join(format!("{name}{SUFFIX}"));
    if is_live(&path).await? {
        let hint = Hint("choose another one with --name, or see `metaservice ps`".into());
        return Err(anyhow::Error::new(hint).context(format!("a job named {name} is running")));
    }
    bind(&path).await
}

/// The control socket of the job `name`.
pub(crate) async fn find(name: &str) -> Result<Client> {
    let path = folder()?.join(format!("{name}{SUFFIX}"));
    if name.contains('/') || !is_live(&path).await? {
        let hint = match names() {
            Ok(names) if !names.is_empty() => format!("running: {}", names.join(", ")),
            _ => "none is running: `metaservice run` starts one".into(),
        };
        let hint = Hint(hint);
        return Err(anyhow::Error::new(hint).context(format!("no job named {name:?} is running")));
    }
    Ok(Client::new(path))
}

/// The names of the jobs that run, without a runtime: nothing here waits for long.
pub(crate) fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder()?)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(name) = name
            && std::os::unix::net::UnixStream::connect(&path).is_ok()
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The control sockets of all jobs that run, by name.
pub(crate) async fn all() -> Result<Vec<Client>> {
    let folder = folder()?;
    let mut paths = Vec::new();
    for entry in
        std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.to_str().is_some_and(|path| path.ends_with(SUFFIX)) && is_live(&path).await? {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths.into_iter().map(Client::new).collect())
}

/// Whether somebody listens at `path`. A socket without a listener is removed.
async fn is_live(path: &Path) -> Result<bool> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("cannot use {}", path.display())),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => bail!("{} exists and is no socket; it is left alone", path.display()),
    }
    match UnixStream::connect(path).await {
        Ok(_) => Ok(true),
        // Its process is gone, or went this moment.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            let _ = std::fs::remove_file(path);
            Ok(false)
        }
        Err(error) => Err(error).with_context(|| format!("cannot use {}", path.display())),
    }
}

/// The user's folder of control sockets; nobody else may enter it.
fn folder() -> Result<PathBuf> {
    let user = rustix::process::getuid();
    let folder = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) if !runtime.is_empty() => PathBuf::from(runtime).join("metaservice"),
        _ => std::env::temp_dir().join(format!("metaservice-{}", user.as_raw())),
    };
    let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&folder);
    made.with_context(|| format!("cannot make {}", folder.display()))?;
    // In a folder that others may write to, they may have been there first.
    let metadata = std::fs::symlink_metadata(&folder)?;
    ensure!(
        metadata.is_dir() && metadata.uid() == user.as_raw() && metadata.mode() & 0o022 == 0,
        "{} is not a folder of yours alone; control sockets do not go there",
        folder.display()
    );
    Ok(folder)
}
