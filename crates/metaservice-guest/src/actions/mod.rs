//! Polls, and the actions that they bring.
//!
//! Owns the loop and the bound on what it starts. An action that is being served already is not
//! served twice, and one of an unknown type is named and passed over.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metaservice_private::lock;

use metaservice_protocol::limits::REPLY_TIMEOUT;
use metaservice_protocol::{Action, ActionId, Exec, Request, Signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::agent::Service;
use crate::backoff::Backoff;
use crate::client::body::Body;
use crate::client::{ClientError, ReplyKind};
use crate::diagnostics::{chain, say};
use crate::{files, shell};

mod dial;
mod stats;

/// How many actions are served at once. No polls are made while there are so many.
const MAX_ACTIONS: usize = 256;

/// How often at least an action is answered when connections fail.
const ANSWER_ATTEMPTS: u32 = 3;

/// The longest wait between two answers.
const ANSWER_PAUSE: Duration = Duration::from_millis(500);

/// An answer that says "nothing yet" sooner than this counts like a failure: a host that
/// does not wait is asked less often, not more.
const TOO_SOON: Duration = Duration::from_millis(100);

/// Polls until `leave` is true and the host has been silent for so long.
pub(crate) async fn run(
    service: &Arc<Service>,
    stopping: &watch::Receiver<bool>,
    (leave, farewell): (watch::Receiver<bool>, Duration),
    actions: &mut JoinSet<()>,
) {
    let served = Arc::new(Mutex::new(HashSet::new()));
    let mut backoff = Backoff::new();
    let mut heard = Instant::now();
    let mut said = false;
    loop {
        while actions.try_join_next().is_some() || actions.len() >= MAX_ACTIONS {
            if actions.len() >= MAX_ACTIONS {
                actions.join_next().await;
            }
        }
        let asked = Instant::now();
        match service.client.poll().await {
            Ok(action) => {
                heard = Instant::now();
                said = false;
                if action.request == Request::None && asked.elapsed() < TOO_SOON {
                    sleep(backoff.delay()).await;
                    continue;
                }
                backoff.reset();
                start(service, stopping, &served, action, actions);
                // Its turn comes first: the host waits for the answer, and nobody for the next poll.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                if *leave.borrow() && heard.elapsed() >= farewell {
                    return;
                }
                if !std::mem::replace(&mut said, true) {
                    say(&format!("polls fail: {}", chain(&error)));
                }
                sleep(backoff.delay()).await;
            }
        }
    }
}

type Served = Arc<Mutex<HashSet<ActionId>>>;

fn start(
    service: &Arc<Service>,
    stopping: &watch::Receiver<bool>,
    served: &Served,
    action: Action,
    actions: &mut JoinSet<()>,
) {
    let Action { id, request } = action;
    match &request {
        Request::None => return,
        Request::Unknown { name } => {
            let name: String = name.chars().take(60).collect();
            say(&format!("an action of the unknown type '{name}' is ignored"));
            return;
        }
        _ => {}
    }
    if !lock(&served).insert(id.clone()) {
        return;
    }
    let (service, stopping) = (Arc::clone(service), stopping.clone());
    let served = Arc::clone(served);
    actions.spawn(async move {
        let name = request.name().to_owned();
        if let Err(error) = answer(&service, &id, request, &stopping).await {
            say(&format!("the reply to {name} failed: {}", chain(&error)));
        }
        lock(&served).remove(&id);
    });
}

/// Serves an action, and again when the connection failed.
async fn answer(
    service: &Service,
    id: &ActionId,
    request: Request,
    stopping: &watch::Receiver<bool>,
) -> Result<(), ClientError> {
    let repeatable = match &request {
        // What has begun does not begin twice; its reply is repeated.
        Request::Signal(_) => false,
        Request::Exec(exec) => !exec.options.detach,
        _ => true,
    };
    let attempt = || serve(service, id, request.clone(), stopping.clone());
    if repeatable { insist(stopping.clone(), attempt).await } else { attempt().await }
}

/// Answers, and again while connections fail and the host waits: it may never have seen the reply
/// begin. If it did, it says that it knows of no such action. A guest that floods the network card
/// can displace one handshake after another, so a few attempts are not enough.
pub(crate) async fn insist<F: Future<Output = Result<(), ClientError>>>(
    mut stopping: watch::Receiver<bool>,
    mut attempt: impl FnMut() -> F,
) -> Result<(), ClientError> {
    let (begun, mut backoff) = (Instant::now(), Backoff::new());
    let mut failure = None;
    for number in 1.. {
        match attempt().await {
            Err(error) if error.is_transport() => {
                failure.get_or_insert(error);
            }
            // The first failure is the reason; that the host knew of it already is none.
            Err(_) if failure.is_some() => break,
            outcome => return outcome,
        }
        let pause = backoff.delay().min(ANSWER_PAUSE);
        if number >= ANSWER_ATTEMPTS && begun.elapsed() + pause >= REPLY_TIMEOUT {
            break;
        }
        tokio::select! {
            () = sleep(pause) => {}
            _ = stopping.wait_for(|stopping| *stopping) => break,
        }
    }
    failure.map_or(Ok(()), Err)
}

async fn serve(
    service: &Service,
    id: &ActionId,
    request: Request,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), ClientError> {
    let client = &service.client;
    // A shell has an order of its own in which it stops.
    let request = match request {
        Request::ExecShell { command, tty } => {
            let exec = Exec { command, tty, ..Exec::default() };
            return shell::serve(service, id, exec, stopping).await;
        }
        Request::Exec(exec) if exec.options.detach => {
            return shell::detach(service, id, exec, stopping).await;
        }
        Request::Exec(exec) => return shell::serve(service, id, exec, stopping).await,
        other => other,
    };
    let between = stopping.clone();
    let reply = async {
        match request {
            Request::GetArtifact { path } => {
                files::artifact::serve(client, id, &service.path(&path)).await
            }
            Request::ListFolder { path } => {
                files::list_folder::serve(client, id, &service.path(&path)).await
            }
            Request::KillProcess => {
                let _parting = service.partings.begin();
                service.running.kill();
                client.reply(id, ReplyKind::Plain, Body::empty()).await
            }
            Request::Dial(dial) => dial::serve(client, id, &dial).await,
            Request::Read(read) => files::read(service, id, read).await,
            Request::Write(write) => files::write(service, id, write).await,
            Request::List(list) => {
                files::list::serve(client, id, &service.path(&list.path), list.options).await
            }
            Request::Stats(options) => stats::serve(client, id, options).await,
            Request::Signal(Signal { signal }) => {
                let _parting = service.partings.begin();
                match service.signal(signal) {
                    Ok(()) => {
                        let reply = || client.reply(id, ReplyKind::Plain, Body::empty());
                        insist(between.clone(), reply).await
                    }
                    Err(failure) => client.refuse(id, &failure).await,
                }
            }
            Request::ExecShell { .. }
            | Request::Exec(_)
            | Request::None
            | Request::Unknown { .. } => Ok(()),
        }
    };
    tokio::select! {
        result = reply => result,
        _ = stopping.wait_for(|stopping| *stopping) => Ok(()),
    }
}
