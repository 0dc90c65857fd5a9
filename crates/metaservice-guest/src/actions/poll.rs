//! The poll loop.
//!
//! Owns the limit of actions that are served at once. An action that is being served already is not
//! served twice. An action of an unknown type is printed and ignored.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metaservice_private::lock;
use metaservice_protocol::{Action, ActionId, PollAnswer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::dispatch::Actions;
use crate::backoff::Backoff;
use crate::diagnostics::{print, with_causes};

/// How many actions are served at once. Then the agent does not poll.
const MAX_ACTIONS: usize = 256;

/// How many characters of an unknown action's name are printed.
const MAX_NAME: usize = 60;

/// A response without an action that comes sooner than this counts as a failure. So a host that
/// does not wait is polled less often.
const TOO_SOON: Duration = Duration::from_millis(100);

/// When the agent stops to poll.
#[derive(Debug)]
pub(crate) struct Leave {
    /// Whether the agent may leave. It becomes true when the result was reported.
    pub(crate) allowed: watch::Receiver<bool>,
    /// How long the host must be silent before.
    pub(crate) silence: Duration,
}

/// Polls, and serves the actions in `tasks`, until the agent leaves.
pub(crate) async fn run(
    actions: &Arc<Actions>,
    stopping: &watch::Receiver<bool>,
    leave: Leave,
    tasks: &mut JoinSet<()>,
) {
    let served = Served::default();
    let mut backoff = Backoff::new();
    let mut heard = Instant::now();
    let mut printed = false;
    loop {
        while tasks.try_join_next().is_some() || tasks.len() >= MAX_ACTIONS {
            if tasks.len() >= MAX_ACTIONS {
                tasks.join_next().await;
            }
        }
        let asked = Instant::now();
        match actions.poll().await {
            Ok(answer) => {
                heard = Instant::now();
                printed = false;
                let none = matches!(answer, PollAnswer::None { .. });
                if none && asked.elapsed() < TOO_SOON {
                    sleep(backoff.delay()).await;
                    continue;
                }
                backoff.reset();
                match answer {
                    PollAnswer::None { .. } => {}
                    PollAnswer::Action(action) => start(actions, stopping, &served, action, tasks),
                    PollAnswer::Unknown { name, .. } => {
                        let name: String = name.chars().take(MAX_NAME).collect();
                        print(&format!("an action of the unknown type '{name}' is ignored"));
                    }
                }
                // The action runs first: the host waits for its reply, and not for the next poll.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                if *leave.allowed.borrow() && heard.elapsed() >= leave.silence {
                    return;
                }
                if !std::mem::replace(&mut printed, true) {
                    print(&format!("polls fail: {}", with_causes(&error)));
                }
                sleep(backoff.delay()).await;
            }
        }
    }
}

/// The actions that are being served.
type Served = Arc<Mutex<HashSet<ActionId>>>;

fn start(
    actions: &Arc<Actions>,
    stopping: &watch::Receiver<bool>,
    served: &Served,
    action: Action,
    tasks: &mut JoinSet<()>,
) {
    let Action { id, request } = action;
    if !lock(served).insert(id.clone()) {
        return;
    }
    let (actions, stopping) = (Arc::clone(actions), stopping.clone());
    let served = Arc::clone(served);
    tasks.spawn(async move {
        let name = request.description().name;
        if let Err(error) = actions.serve(&id, request, &stopping).await {
            print(&format!("the reply to {name} failed: {}", with_causes(&error)));
        }
        lock(&served).remove(&id);
    });
}
