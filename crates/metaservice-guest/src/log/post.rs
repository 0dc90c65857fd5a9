//! `post-log`: a file as an additional log stream.
//!
//! Owns one request. It is a tool for scripts, so it tries once and reports an error instead of
//! waiting for the service.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::client::Client;
use crate::client::body::Body;
use crate::client::error::ClientError;
use crate::client::host::Host;
use crate::state::StateDirectory;
use crate::system::blocks::{self, BlockPool};

/// Why a file was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostLogError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot send the log to {host}")]
    Send { host: Host, source: ClientError },
}

/// Sends a file, or the standard input for `-`, as an additional log stream.
///
/// If the agent that uses the directory `state` has a session, the request uses it. For that, this
/// process must be able to read the directory. Dropping the future cuts the request; the service
/// keeps what has arrived.
///
/// # Errors
/// When the file cannot be read to its end, or the service does not confirm it.
pub(crate) async fn post_log(
    host: Host,
    state: Option<PathBuf>,
    path: &Path,
) -> Result<(), PostLogError> {
    let failed = |source| PostLogError::Read { path: path.to_owned(), source };
    let mut file = open(path).map_err(failed)?;
    let client = Client::new(host);
    let grant = StateDirectory::of(state).session();
    client.set_session(grant.as_ref().map(|grant| grant.secret.as_str()));
    let (sender, body) = Body::stream(None);
    let request = client.log(body);
    let pool = BlockPool::default();
    let feed = async {
        loop {
            let (back, block) = blocks::read(&pool, file, None).await.map_err(failed)?;
            file = back;
            // If the request is over, its result says why.
            if block.is_empty() {
                let _ = sender.end().await;
                return Ok(());
            }
            if sender.send(block).await.is_err() {
                return Ok(());
            }
        }
    };
    let request = async {
        let host = client.host().clone();
        request.await.map_err(|source| PostLogError::Send { host, source })
    };
    tokio::try_join!(feed, request).map(drop)
}

fn open(path: &Path) -> io::Result<File> {
    if path == Path::new("-") {
        return Ok(io::stdin().as_fd().try_clone_to_owned()?.into());
    }
    File::open(path)
}
