//! The socket of a user, by which clients find all jobs.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use metaservice::control::{self as metaservice_control, Client};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use crate::control::{self, ControlError, Running, SocketFile};
use crate::history::{self, Jobs};

/// The name of the socket, beside the directory of jobs.
const SOCKET: &str = "api.sock";

/// How long a job may take to answer: one that is stopped does not hide the others.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of a job that does not answer.
const SILENT: &str = "silent";

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
        let mut asking = JoinSet::new();
        for Running { name, pid, client } in control::all().await? {
            asking.spawn(async move {
                let job = describe(&name, pid, &client).await?;
                Some((name, job))
            });
        }
        let mut jobs = std::collections::BTreeMap::new();
        if all {
            let past = control::all_past()?.into_iter();
            jobs.extend(past.map(|past| (past.job.name.clone(), json!(past))));
        }
        jobs.extend(asking.join_all().await.into_iter().flatten());
        Ok(jobs.into_values().collect())
    }

    async fn socket(&self, name: &str) -> Result<PathBuf, BoxError> {
        Ok(control::find(name).await?.socket().to_owned())
    }
}

/// A job that runs, or the process that should have described it. `None`: it has just ended.
async fn describe(name: &str, pid: Option<i32>, client: &Client) -> Option<Value> {
    match tokio::time::timeout(ANSWER_TIMEOUT, client.job()).await {
        Ok(Ok(job)) => Some(json!(job)),
        Ok(Err(_)) => None,
        Err(_) => Some(json!({ "name": name, "state": SILENT, "pid": pid })),
    }
}
