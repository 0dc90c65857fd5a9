//! The socket of a user, by which clients find all jobs.

use std::error::Error;
use std::path::PathBuf;

use metaservice::control as metaservice_control;
use serde_json::Value;
use tokio::net::UnixListener;

use crate::control::{self, ControlError, SocketFile};
use crate::history::{self, Jobs};
use crate::listing::{self, ListedJob};

/// The name of the socket, beside the directory of jobs.
const SOCKET: &str = "api.sock";

/// The path of the socket: `metaservice/api.sock` in the user's state directory.
#[must_use]
pub fn socket() -> PathBuf {
    history::place().with_file_name(SOCKET)
}

/// The socket of this user, and the jobs behind it.
#[derive(Debug)]
pub struct Api {
    listener: UnixListener,
    _socket: SocketFile,
}

impl Api {
    /// Listens at [`socket`]. Only this user can connect. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When another process listens there, or the socket cannot be made.
    pub async fn bind() -> Result<Self, ControlError> {
        // The directory of jobs is private, and so is the one above it.
        Jobs::open().map_err(ControlError::Directory)?;
        let (listener, socket) = control::bind(&socket()).await?;
        Ok(Self { listener, _socket: socket })
    }

    /// Serves clients without end. Dropping the future removes the socket, and ends what is
    /// forwarded.
    ///
    /// # Errors
    /// If the socket cannot be served any longer.
    pub async fn serve(self) -> std::io::Result<()> {
        let Self { listener, _socket } = self;
        metaservice_control::serve_jobs(OfUser, listener).await
    }
}

/// The jobs of this user.
struct OfUser;

type BoxError = Box<dyn Error + Send + Sync>;

impl metaservice_control::Jobs for OfUser {
    async fn list(&self, all: bool) -> Result<Value, BoxError> {
        Ok(listing::list(all).await?.iter().map(ListedJob::json).collect())
    }

    async fn socket(&self, name: &str) -> Result<PathBuf, BoxError> {
        Ok(control::find(name).await?.socket().to_owned())
    }
}
