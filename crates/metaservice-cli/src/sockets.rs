//! Sockets with names: the job's control socket, and what `serve` listens on.
//!
//! Control sockets are in one folder of the user's, `NAME.sock` each. A socket that
//! nobody listens on any longer (its process was killed) is recognised by a refused
//! connection and removed; nothing else ever is.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use metaservice::control::Client;
use metaservice_private::bases;
use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

use crate::leaving::CleanUp;
use crate::printer::Hint;

const SUFFIX: &str = ".sock";

/// As many connections as the system lets wait.
const BACKLOG: i32 = 4096;

/// A socket with its name in the file system, which is removed when this is dropped.
pub(crate) struct SocketFile(#[expect(dead_code, reason = "its drop is its use")] CleanUp);

impl SocketFile {
    fn new(path: PathBuf) -> Self {
        Self(CleanUp::new(move || drop(std::fs::remove_file(path))))
    }
}

/// Listens at `path`, which only this user may open.
pub(crate) async fn bind(path: &Path) -> Result<(UnixListener, SocketFile)> {
    if is_live(path).await? {
        bail!("somebody is listening on {} already", path.display());
    }
    let cannot = || format!("cannot listen on {}", path.display());
    let (listener, socket) = listen(path).with_context(cannot)?;
    Ok((UnixListener::from_std(listener).with_context(cannot)?, socket))
}

/// A socket that has its mode before it has its name: nobody else gets in meanwhile.
fn listen(path: &Path) -> io::Result<(std::os::unix::net::UnixListener, SocketFile)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let file = SocketFile::new(path.to_owned());
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((socket.into(), file))
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
        let hint = match names().await {
            Ok(names) if !names.is_empty() => format!("running: {}", names.join(", ")),
            _ => "none is running: `metaservice run` starts one".into(),
        };
        let hint = Hint(hint);
        return Err(anyhow::Error::new(hint).context(format!("no job named {name:?} is running")));
    }
    Ok(Client::new(path))
}

/// The names of the jobs that run. Waits for none of them.
pub(crate) async fn names() -> Result<Vec<String>> {
    Ok(all().await?.into_iter().map(|running| running.name).collect())
}

/// A job that runs, and may not answer.
pub(crate) struct Running {
    pub(crate) name: String,
    /// The process that serves it.
    pub(crate) pid: Option<i32>,
    pub(crate) client: Client,
}

/// All jobs that run, by name. Waits for none of them.
pub(crate) async fn all() -> Result<Vec<Running>> {
    let folder = folder()?;
    let mut all = Vec::new();
    for entry in
        std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
        match listener(&path).await {
            Ok(Some(pid)) => {
                all.push(Running { name: name.to_owned(), pid, client: Client::new(&path) });
            }
            Ok(None) => {}
            // What is no job's does not hide those that are.
            Err(error) => tracing::warn!("{error:#}"),
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Whether somebody listens at `path`.
async fn is_live(path: &Path) -> Result<bool> {
    Ok(listener(path).await?.is_some())
}

/// The process that listens at `path`, if there is one and as far as it is known. A socket without
/// a listener is removed.
async fn listener(path: &Path) -> Result<Option<Option<i32>>> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot use {}", path.display())),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => bail!("{} exists and is no socket; it is left alone", path.display()),
    }
    match UnixStream::connect(path).await {
        Ok(stream) => Ok(Some(stream.peer_cred().ok().and_then(|peer| peer.pid()))),
        // It takes no more connections, and will when it goes on.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(None)),
        // Its process is gone, or went this moment.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            let _ = std::fs::remove_file(path);
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot use {}", path.display())),
    }
}

/// The user's directory of control sockets; nobody else may enter it.
fn folder() -> Result<PathBuf> {
    let directory =
        bases::runtime("metaservice").context("there is no place for control sockets")?;
    Ok(directory.path().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_socket_is_its_users_alone_from_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (listener, socket) = listen(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        drop(socket);
        assert!(!path.exists());
    }
}
