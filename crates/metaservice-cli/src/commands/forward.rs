//! `metaservice forward JOB [ADDR:]PORT:PORT`: forwards TCP ports of the host to ports of the
//! guest.
//!
//! Each connection is independent. If the guest refuses one, the tool closes it and prints an
//! error.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use metaservice::control::{Client, JobState};
use metaservice::{ActionError, Capability};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::fleet::MaybeQueue;
use crate::flags::JobName;
use crate::interrupts::Interrupts;
use crate::output;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice forward build 8080:80
  metaservice forward build 0.0.0.0:8443:443 0:5432
  metaservice forward --queue local 1f2e3d4c5b6a 8080:80

The ports are those of localhost in the guest. The verb ends with Ctrl-C or with the job.";

/// Forward TCP ports of the host to ports of the guest.
///
/// With --queue, JOB is the id of a job of that queue, on whatever host it runs.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ForwardVerb {
    #[command(flatten)]
    pub(crate) name: JobName,
    /// [ADDR:]PORT:GUEST_PORT. Repeatable.
    ///
    /// The default address is 127.0.0.1. Port 0 stands for any free port, which is printed.
    #[arg(value_name = "SPEC", required = true)]
    pub(crate) specs: Vec<String>,
    #[command(flatten)]
    pub(crate) queue: MaybeQueue,
}

/// The host name in the guest to which connections go.
const HOST: &str = "localhost";

pub(crate) async fn forward(args: ForwardVerb, printer: Printer) -> Result<ExitStatus> {
    let specs = args.specs.iter().map(|spec| Forward::parse(spec));
    let specs = specs.collect::<Result<Vec<_>>>()?;
    let mut interrupts = Interrupts::listen()?;
    let job = &args.name.job;
    let reaching = async {
        let client = args.queue.reach(job, printer).await?;
        check(&client).await.with_context(|| format!("cannot forward to {job}"))?;
        anyhow::Ok(client)
    };
    let client = tokio::select! {
        client = reaching => client?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    let mut forwarding = JoinSet::new();
    for spec in specs {
        let listener = TcpListener::bind(spec.listen).await;
        let listener = listener.with_context(|| format!("cannot listen on {}", spec.listen))?;
        told(listener.local_addr()?, spec.port, printer)?;
        forwarding.spawn(accept(listener, Client::clone(&client), spec.port, printer));
    }
    // Dropping the set at the end of this function ends all tasks.
    tokio::select! {
        waited = client.wait() => {
            waited.with_context(|| format!("lost the job {job}"))?;
            Ok(ExitStatus::SUCCESS)
        }
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}

/// Fails early if the agent cannot forward. Before the agent comes, its capabilities are unknown,
/// so the first connection has to find out.
async fn check(client: &Client) -> Result<()> {
    let job = client.job().await?;
    let announced = job.agent.is_some_and(|agent| agent.capabilities.has(Capability::Dial));
    if job.state == JobState::Running && !announced {
        return Err(ActionError::Unsupported(Capability::Dial).into());
    }
    Ok(())
}

fn told(address: SocketAddr, port: u16, printer: Printer) -> std::io::Result<()> {
    if printer.is_json() {
        printer.event("forwarding", json!({ "address": address.to_string(), "port": port }));
    } else {
        output::line(format_args!("{address} -> {port}"))?;
    }
    Ok(())
}

/// How long no connection is accepted after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

async fn accept(listener: TcpListener, client: Client, port: u16, printer: Printer) {
    let client = Arc::new(client);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(carry(stream, Arc::clone(&client), port, printer));
                }
                // The peer has closed the connection already, or there are no free descriptors.
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(mut stream: TcpStream, client: Arc<Client>, port: u16, printer: Printer) {
    let _ = stream.set_nodelay(true);
    let mut dialled = match client.dial(HOST, port).await {
        Ok(dialled) => dialled,
        Err(error) => {
            let error = anyhow::Error::new(error);
            printer.error(&error.context(format!("cannot connect to the guest's port {port}")));
            return;
        }
    };
    if let Err(error) = copy_bidirectional(&mut stream, &mut dialled).await {
        tracing::debug!("a connection to port {port} broke: {error}");
    }
}

/// A port of the host that is forwarded to a port of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Forward {
    listen: SocketAddr,
    port: u16,
}

impl Forward {
    /// Parses `[ADDR:]PORT:PORT`. An IPv6 address needs brackets.
    fn parse(text: &str) -> Result<Self> {
        let forward = || {
            let (listen, port) = text.rsplit_once(':')?;
            let listen = match listen.parse::<u16>() {
                Ok(own) => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), own),
                Err(_) => listen.parse().ok()?,
            };
            let port = port.parse().ok().filter(|port| *port > 0)?;
            Some(Self { listen, port })
        };
        forward().with_context(|| format!("{text:?} is not [ADDR:]PORT:GUEST_PORT"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_has_an_address_or_not() {
        let parsed =
            |text: &str| Forward::parse(text).map(|f| (f.listen.to_string(), f.port)).unwrap();
        assert_eq!(parsed("8080:80"), ("127.0.0.1:8080".into(), 80));
        assert_eq!(parsed("0.0.0.0:0:443"), ("0.0.0.0:0".into(), 443));
        assert_eq!(parsed("[::1]:1:2"), ("[::1]:1".into(), 2));
        for wrong in ["", "80", "80:", ":80", "80:0", "a:1:2", "::1:1:2", "1:2:3", "1:65536"] {
            assert!(Forward::parse(wrong).is_err(), "{wrong}");
        }
    }
}
