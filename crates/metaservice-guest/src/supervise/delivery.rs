//! The delivery of a job's output to the service, by its supervisor.

use metaservice_protocol::ActionId;
use tokio::sync::watch;

use super::order::Order;
use crate::client::Client;
use crate::client::host::Host;
use crate::log::deliver;
use crate::log::output::{Output, OutputPipes};
use crate::state::StateDirectory;
use crate::system::processes::Process;

/// Delivers the output until it has ended and the service has confirmed it. Completes at once
/// without an output.
pub(super) async fn deliver(
    order: &Order,
    state: &StateDirectory,
    output: Option<OutputPipes>,
    ended: watch::Receiver<bool>,
) {
    let Some(pipes) = output else { return };
    let route = order.log.as_ref().and_then(|log| Some((log, Host::parse(&log.host).ok()?)));
    let streams = Process::own_identity().and_then(|own| own.as_id()).and_then(streams);
    let (Some((log, host)), Some(streams), Ok(mut output)) =
        (route, streams, Output::new(pipes, ended))
    else {
        return;
    };
    let client = Client::new(host);
    client.set_session(state.session().as_ref().map(|grant| grant.secret.as_str()));
    if log.numbered {
        deliver::deliver(&client, streams, &mut output).await;
    } else {
        deliver::deliver_plain(&client, &mut output).await;
    }
    let _ = state.set_delivered();
}

/// The names of the logs of stdout and stderr.
fn streams(own: ActionId) -> Option<[ActionId; 2]> {
    let stderr = ActionId::parse(&format!("{own}-stderr")).ok()?;
    Some([own, stderr])
}
