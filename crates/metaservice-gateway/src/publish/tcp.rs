//! Connections of clients to the guest.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use metaservice_nic::Gateway as Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::ends::Ends;
use crate::inspect::Inspector;

/// How long a listener rests after the host had no socket for a client.
const REST: Duration = Duration::from_millis(100);

/// Where the connections of a port go.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) router: Arc<Router>,
    pub(super) port: u16,
    /// The address that the guest sees.
    pub(super) source: Ipv4Addr,
}

/// Accepts clients. One for whom there is no place waits in the queue of the system.
pub(super) async fn listen(listener: TcpListener, target: Target, places: Arc<Semaphore>) {
    let mut tasks = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(tasks.spawn(serve(client, target.clone(), place))),
                Err(error) => {
                    tracing::debug!(%error, "a client was not accepted");
                    tokio::time::sleep(REST).await;
                }
            },
            Some(result) = tasks.join_next() => {
                if let Err(error) = result {
                    tracing::error!(%error, "a connection to a published port has failed");
                }
            }
        }
    }
}

/// Connects a client with the guest. A guest that refuses resets the client's connection.
async fn serve(client: TcpStream, target: Target, _place: OwnedSemaphorePermit) {
    let _ = client.set_nodelay(true);
    let source = SocketAddrV4::new(target.source, 0);
    match target.router.connect(target.port, source).await {
        Ok(guest) => {
            let mut ends = Ends::new(guest, client);
            ends.relay(Inspector::Open, &mut 0, &mut 0).await;
        }
        Err(error) => {
            tracing::debug!(port = target.port, %error, "the guest was not connected");
            let _ = client.set_zero_linger();
        }
    }
}
