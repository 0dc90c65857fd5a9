//! Polls, and the actions that they bring.
//!
//! Owns the loop and the bound on what it starts. An action that is being served already is not
//! served twice, and one of an unknown type is named and passed over.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metaservice_private::lock;

use metaservice_protocol::limits::REPLY_TIMEOUT;
use metaservice_protocol::{Action, ActionId, ActionRequest, Exec, PollAnswer, Signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::agent::Service;
use crate::backoff::Backoff;
use crate::client::body::Body;
use crate::client::{ClientError, ReplyBody};
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
            Ok(answer) => {
                heard = Instant::now();
                said = false;
                let none = matches!(answer, PollAnswer::None { .. });
                if none && asked.elapsed() < TOO_SOON {
                    sleep(backoff.delay()).await;
                    continue;
                }
                backoff.reset();
                match answer {
                    PollAnswer::None { .. } => {}
                    PollAnswer::Action(action) => {
                        start(service, stopping, &served, action, actions);
                    }
                    PollAnswer::Unknown { name, .. } => {
                        let name: String = name.chars().take(60).collect();
                        say(&format!("an action of the unknown type '{name}' is ignored"));
                    }
                }
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
    if !lock(&served).insert(id.clone()) {
        return;
    }
    let (service, stopping) = (Arc::clone(service), stopping.clone());
    let served = Arc::clone(served);
    actions.spawn(async move {
        let name = request.description().name;
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
    request: ActionRequest,
    stopping: &watch::Receiver<bool>,
) -> Result<(), ClientError> {
    let attempt = || serve(service, id, request.clone(), stopping.clone());
    // An action that must not be performed twice repeats its reply by itself.
    let repeats = request.description().agent_repeats;
    if repeats { insist(stopping.clone(), attempt).await } else { attempt().await }
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

/// Performs an action and replies to it.
async fn serve(
    service: &Service,
    id: &ActionId,
    request: ActionRequest,
    stopping: watch::Receiver<bool>,
) -> Result<(), ClientError> {
    let client = &service.client;
    match request {
        ActionRequest::ExecShell { command, tty } => {
            let exec = Exec { command, tty, ..Exec::default() };
            shell::serve(service, id, exec, stopping).await
        }
        ActionRequest::Exec(exec) if exec.options.detach => {
            shell::detach(service, id, exec, stopping).await
        }
        ActionRequest::Exec(exec) => shell::serve(service, id, exec, stopping).await,
        ActionRequest::GetArtifact { path } => {
            let path = service.path(&path);
            unless(stopping, files::artifact::serve(client, id, &path)).await
        }
        ActionRequest::ListFolder { path } => {
            let path = service.path(&path);
            unless(stopping, files::list_folder::serve(client, id, &path)).await
        }
        ActionRequest::KillProcess => {
            let _parting = service.partings.begin();
            service.running.kill();
            unless(stopping, client.reply(id, ReplyBody::Plain, Body::empty())).await
        }
        ActionRequest::Dial(dial) => unless(stopping, dial::serve(client, id, &dial)).await,
        ActionRequest::Read(read) => unless(stopping, files::read(service, id, read)).await,
        ActionRequest::Write(write) => unless(stopping, files::write(service, id, write)).await,
        ActionRequest::List(list) => {
            let path = service.path(&list.path);
            unless(stopping, files::list::serve(client, id, &path, list.options)).await
        }
        ActionRequest::Stats(options) => unless(stopping, stats::serve(client, id, options)).await,
        ActionRequest::Signal(signal) => {
            unless(stopping.clone(), send_signal(service, id, signal, stopping)).await
        }
    }
}

/// Sends a signal once, and repeats the reply until the host has it.
async fn send_signal(
    service: &Service,
    id: &ActionId,
    Signal { signal }: Signal,
    stopping: watch::Receiver<bool>,
) -> Result<(), ClientError> {
    let client = &service.client;
    let _parting = service.partings.begin();
    match service.signal(signal) {
        Ok(()) => insist(stopping, || client.reply(id, ReplyBody::Plain, Body::empty())).await,
        Err(failure) => client.refuse(id, &failure).await,
    }
}

/// Drops the reply when the agent stops. Shells are not served in here: they stop in an order of
/// their own.
async fn unless(
    mut stopping: watch::Receiver<bool>,
    reply: impl Future<Output = Result<(), ClientError>>,
) -> Result<(), ClientError> {
    tokio::select! {
        result = reply => result,
        _ = stopping.wait_for(|stopping| *stopping) => Ok(()),
    }
}
