//! `metaservice serve`: the service of one job for a machine that somebody else starts.

use anyhow::{Context, Result};
use metaservice::Cloud;
use metaservice_qemu::SystemUuid;
use metaservice_sandbox::control::{self, SocketFile};
use metaservice_sandbox::job::cards;
use metaservice_sandbox::{Launcher, Sandbox};
use serde_json::json;
use tokio::net::TcpListener;

use crate::args::ServeArgs;
use crate::description::{self, Description};
use crate::hints;
use crate::interrupts::Interrupts;
use crate::listeners::{Address, NoDelay, Vsock};
use crate::output::events::{self, Told};
use crate::output::printer::Printer;
use crate::output::{self, AsyncOutput};
use crate::status::ExitStatus;

/// What to do about keys and user data that no cloud-init gets.
const CLOUD_HINT: &str = "give --cloud";

pub(crate) async fn serve(args: ServeArgs, printer: Printer) -> Result<ExitStatus> {
    let address = Address::parse(&args.listen)?;
    let boot_timeout = description::period(args.boot_timeout.as_deref(), "--boot-timeout")?;
    let boot_timeout = boot_timeout.map(metaservice_sandbox::spec::Period::get);
    let description = Description::of_job(args.job)?.with_cloud(args.image);
    let job = tokio::task::block_in_place(|| description.check())?;
    let cloud = if args.cloud {
        let cards = cards(&args.mac).context("in --mac")?;
        Some(cards.into_iter().fold(job.cloud().instance(job.name()), Cloud::card))
    } else if job.cloud().is_empty() {
        None
    } else {
        let what = "--ssh-key and --user-data are for an image that boots by itself";
        return Err(hints::hinted(CLOUD_HINT, what));
    };
    let told = Told::of(&job, boot_timeout, args.state.clone());
    let mut interrupts = Interrupts::listen()?;
    output::warn_of_closed(&job, printer);
    let timeout = job.timeout();
    let launcher = Launcher::new(job)
        .log(AsyncOutput::new())
        .state(args.state)
        .host_names(args.host_name)
        .cloud(cloud.clone())
        .boot_timeout(boot_timeout);
    if let Some(status) = launcher.ended().map_err(hints::launch)? {
        printer.note("the job has ended before, with this status; its state is not touched");
        return Ok(ExitStatus(status));
    }
    // A FIFO that gets the log opens when its reader comes.
    let (sandbox, _socket) = tokio::select! {
        listening = listen(&address, launcher, printer) => listening?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    if let Some(cloud) = &cloud {
        let uuid = SystemUuid::from(cloud.system_uuid()).to_string();
        printer.note(&format!("set the machine's UUID and serial number to {uuid}"));
        printer.event("cloud", json!({ "uuid": uuid }));
    }
    if timeout.is_some() && boot_timeout.is_none() {
        let text = "--timeout begins when the guest fetches its command; the wait for that";
        printer.note(&format!("{text} has no limit (--boot-timeout DURATION sets one)"));
    }
    let report = events::follow(sandbox, &mut interrupts, &told, printer).await;
    events::conclude(report, &told, printer)
}

/// Listens at the address, and serves the job there.
async fn listen(
    address: &Address,
    launcher: Launcher,
    printer: Printer,
) -> Result<(Sandbox, Option<SocketFile>)> {
    let (serving, socket, text) = match address {
        Address::Tcp(address) => {
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
            let text = listener.local_addr()?.to_string();
            (launcher.serve(NoDelay(listener)).await, None, text)
        }
        Address::Vsock(port) => {
            let listener = Vsock::bind(*port);
            let listener =
                listener.with_context(|| format!("cannot listen on vsock port {port}"))?;
            (launcher.serve(listener).await, None, format!("vsock:{port}"))
        }
        Address::Unix(path) => {
            let (listener, socket) = control::bind(path).await?;
            (launcher.serve(listener).await, Some(socket), format!("unix:{}", path.display()))
        }
    };
    let sandbox = serving.map_err(hints::launch)?;
    let shown = match address {
        Address::Vsock(port) => format!("vsock port {port}"),
        Address::Unix(path) => path.display().to_string(),
        Address::Tcp(_) => text.clone(),
    };
    printer.note(&format!("serving on {shown}"));
    printer.event("serving", json!({ "address": text }));
    Ok((sandbox, socket))
}
