//! The delivery of a job's output to the service, by its supervisor.

use std::os::fd::OwnedFd;

use tokio::sync::watch;

use super::order::Order;
use crate::client::Client;
use crate::client::host::Host;
use crate::log::deliver;
use crate::log::output::Output;
use crate::state::StateDirectory;
use crate::system::processes::Process;

/// Delivers the output that is read from the first end of a pipe, until it has ended and the
/// service has confirmed it. Completes at once without an output.
///
/// The second end, the writing one, stays open: otherwise the pipe would end when the command
/// closes it.
pub(super) async fn deliver(
    order: &Order,
    state: &StateDirectory,
    output: Option<(OwnedFd, OwnedFd)>,
    ended: watch::Receiver<bool>,
) {
    let Some((reader, _writer)) = output else { return };
    let route = order.log.as_ref().and_then(|log| Some((log, Host::parse(&log.host).ok()?)));
    let stream = Process::own_identity().and_then(|own| own.as_id());
    let (Some((log, host)), Some(stream), Ok(mut output)) =
        (route, stream, Output::new(reader, ended))
    else {
        return;
    };
    let client = Client::new(host);
    client.set_session(state.session().as_ref().map(|grant| grant.secret.as_str()));
    if log.numbered {
        deliver::deliver(&client, stream, &mut output).await;
    } else {
        deliver::deliver_plain(&client, &mut output).await;
    }
    let _ = state.set_delivered();
}
