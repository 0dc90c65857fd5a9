//! What the guest of a job has tried to connect to, over a websocket.

use axum::extract::{Extension, Path, Query, State, WebSocketUpgrade};
use axum::response::Response;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::app::App;
use super::find::{Asked, Which, same};
use super::guard::Until;
use super::responses::{Code, Refused, refuse};
use super::sockets;
use crate::network::{Attempts, follow, read};
use crate::source::Found;

/// Sends the attempts so far, and then each new one.
pub(super) async fn attempts(
    State(app): State<App>,
    Path(name): Path<String>,
    which: Asked<Which>,
    Extension(Until(end)): Extension<Until>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refused> {
    let Query(Which { started }) = which?;
    let (sender, messages) = mpsc::channel(1);
    let task = match app.source.find(&name, None).await? {
        Found::Running(client) => {
            same(client.job().await?.started_ms, started)?;
            let policy = client.network_policy().await?;
            let first = Attempts { policy: Some(policy), live: true, ..Attempts::default() };
            tokio::spawn(follow(client, first, sender))
        }
        Found::Waiting(_) => return Err(refuse(Code::Waits, "the job waits for a worker")),
        Found::Ended(ended) => {
            same(ended.job.started_ms, started)?;
            let Some(file) = ended.network else {
                return Err(refuse(Code::NotFound, "no record of its network is kept"));
            };
            tokio::spawn(read(tokio::fs::File::from_std(file), sender))
        }
    };
    let task = AbortOnDropHandle::new(task);
    Ok(sockets::pass(upgrade, messages, end, task))
}
