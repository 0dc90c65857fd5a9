//! `post-log`: a file as a log stream of its own.
//!
//! Owns one request. It is a tool in somebody's script, so it tries once and says what went
//! wrong instead of waiting for better times.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::client::body::Body;
use crate::client::host::Host;
use crate::client::{Client, ClientError};
use crate::files::blocks::{self, Pool};
use crate::state::Folder;

/// A file that could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum PostLogError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The service did not take it.
    #[error("cannot send the log to {host}")]
    Send {
        /// Where the service was looked for.
        host: Host,
        /// Why.
        #[source]
        source: ClientError,
    },
}

/// Sends a file, or the standard input for `-`, as an additional log stream.
///
/// Where the agent whose state is in `state` (by default where [`Settings`](crate::Settings) has
/// it) has claimed the service, its session is used: for that its folder has to be readable.
///
/// Dropping the future cuts the request; the service keeps what has arrived.
///
/// # Errors
/// [`PostLogError`] when the file cannot be read to its end or the service does not confirm
/// to have all of it.
pub async fn post_log(host: Host, state: Option<PathBuf>, path: &Path) -> Result<(), PostLogError> {
    let failed = |source| PostLogError::Read { path: path.to_owned(), source };
    let mut file = open(path).map_err(failed)?;
    let client = Client::new(host);
    let grant = Folder::of(state).session();
    client.set_session(grant.as_ref().map(|grant| grant.secret.as_str()));
    let (sender, body) = Body::stream(None);
    let request = client.log(body);
    let pool = Pool::default();
    let feed = async {
        loop {
            let (back, block) = blocks::read(&pool, file, None).await.map_err(failed)?;
            file = back;
            // A request that is over tells its own reason.
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
