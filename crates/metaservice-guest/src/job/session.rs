//! Fetching and claiming the job.
//!
//! Owns the conversation before there is a job: it waits for the network and for a service, waits
//! for a job in a machine that may become a snapshot, and claims the job if the service has
//! sessions.

use metaservice_protocol::{Execute, SessionGrant};

use super::renewal;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::client::error::ClientError;
use crate::diagnostics::{print, with_causes};
use crate::state::{StateDirectory, StateError};

/// Fetches the job as soon as a service has one, and claims it if the service has sessions.
/// Sets the session of the client.
///
/// # Errors
/// When the state directory cannot be used.
pub(crate) async fn fetch(client: &Client, state: &StateDirectory) -> Result<Execute, StateError> {
    let mut grant = None;
    let mut backoff = Backoff::new();
    let mut printed = false;
    loop {
        let error = match client.execute().await {
            Ok(execute) if client.has_session() || !client.service().session => {
                return Ok(with_secrets(execute, grant));
            }
            // The job was not claimed yet, or the session is of another service.
            Ok(_) | Err(ClientError::Status { status: 401, .. }) => {
                match claim(client, state).await? {
                    Ok(granted) => {
                        client.set_session(Some(&granted.secret));
                        grant = Some(granted);
                        continue;
                    }
                    Err(error) => error,
                }
            }
            Err(ClientError::Status { status: 503, .. }) if client.service().renewal => {
                state.forget_agent()?;
                renewal::wait_for_job(client, state).await
            }
            Err(error) => error,
        };
        if !std::mem::replace(&mut printed, true) {
            let reason = with_causes(&error);
            print(&format!("waiting for the service at {}: {reason}", client.host()));
        }
        tokio::time::sleep(backoff.delay()).await;
    }
}

/// Adds the secret variables, which only the agent that claimed the job gets. They override others.
fn with_secrets(mut execute: Execute, grant: Option<SessionGrant>) -> Execute {
    execute.env.extend(grant.into_iter().flat_map(|grant| grant.env));
    execute
}

/// Claims the job, and stores the grant for an agent that is started after this one.
async fn claim(
    client: &Client,
    state: &StateDirectory,
) -> Result<Result<SessionGrant, ClientError>, StateError> {
    client.set_session(None);
    // Stored before it is used. If the response is lost, or the agent dies, the next claim has the
    // same nonce and succeeds.
    let nonce = state.nonce()?;
    match client.claim(&nonce).await {
        Ok(mut grant) => {
            match state.session().filter(|before| before.secret == grant.secret) {
                // The service sends secret variables once: an earlier agent got them.
                Some(before) => grant.env.extend(before.env),
                // Another service does not have the stored result. Its job is another job, even if
                // the command is the same.
                None if state.is_reported() => state.forget_job()?,
                None => {}
            }
            state.set_session(&grant)?;
            Ok(Ok(grant))
        }
        Err(error) => Ok(Err(error)),
    }
}
