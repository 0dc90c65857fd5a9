//! `metaservice serve`: the service of one job for a machine that another program starts.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use metaservice::Cloud;
use metaservice_qemu::SystemUuid;
use metaservice_sandbox::control::{self, SocketFile};
use metaservice_sandbox::job::cards;
use metaservice_sandbox::{Launcher, OpenJob, Sandbox};
use serde_json::json;
use tokio::net::TcpListener;

use crate::description::{self, Description};
use crate::flags::{CloudArgs, JobArgs};
use crate::hints;
use crate::interrupts::Interrupts;
use crate::listeners::{Address, NoDelay, Vsock};
use crate::output;
use crate::output::events::{self, JobFacts};
use crate::output::printer::Printer;
use crate::status::ExitStatus;
use crate::terminal::owner::OwnerInput;

/// The heading of the options of the service in the help.
const SERVICE: &str = "Service options";

const HELP: &str = "\
Examples:
  metaservice serve --listen 192.168.122.1:80 -- make check
  metaservice serve --listen vsock:80 --state /var/lib/job -- make check

Exit status:
  that of the command; 124 after --timeout, 125 if metaservice failed, 126 if the
  command cannot be run, 127 if it is not found, 128+N after signal N.";

/// Serve a job to a virtual machine that another program starts.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Serve {
    /// The address of the service: IP:PORT, unix:PATH or vsock:PORT.
    #[arg(long, value_name = "ADDR", help_heading = SERVICE)]
    pub(crate) listen: String,
    /// Keep the job in this directory, so that a restarted service continues it.
    ///
    /// The directory gets the log and everything that the service has acknowledged. Start the
    /// service again with the same command line. The directory is created if it does not exist.
    /// Otherwise it must be empty, and only its user may be able to write it.
    #[arg(long, value_name = "DIR", conflicts_with = "log", help_heading = SERVICE)]
    pub(crate) state: Option<PathBuf>,
    /// How long to wait until the guest fetches its command [default: no limit].
    ///
    /// The time of --timeout starts after this.
    #[arg(long, value_name = "DURATION", help_heading = SERVICE)]
    pub(crate) boot_timeout: Option<String>,
    /// A domain name by which the guest knows the service. Repeatable.
    ///
    /// Requests with another domain name are refused. Addresses and names without a dot are always
    /// accepted.
    #[arg(long, value_name = "NAME", help_heading = SERVICE)]
    pub(crate) host_name: Vec<String>,
    /// Also serve the cloud-init of a stock cloud image, and deliver the agent.
    ///
    /// Set the SMBIOS UUID and serial number of the machine to the printed UUID, or to another one
    /// that begins with ec2.
    #[arg(long, help_heading = SERVICE)]
    pub(crate) cloud: bool,
    /// A network card that the image sets up by DHCP. Repeatable.
    ///
    /// Name the card that leads to the service first. Without this option, the image sets up its
    /// first card.
    #[arg(long, value_name = "MAC", requires = "cloud", help_heading = SERVICE)]
    pub(crate) mac: Vec<String>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) image: CloudArgs,
}

/// What to do about keys and user data that no cloud-init gets.
const CLOUD_HINT: &str = "give --cloud";

pub(crate) async fn serve(args: Serve, printer: Printer) -> Result<ExitStatus> {
    let address = Address::parse(&args.listen)?;
    let boot_timeout = description::period(args.boot_timeout.as_deref(), "--boot-timeout")?;
    let boot_timeout = boot_timeout.map(metaservice_sandbox::spec::Period::get);
    let keep = !args.job.rm;
    let description = Description::of_job(args.job)?.with_cloud(args.image);
    let job = tokio::task::block_in_place(|| description.check())?;
    let cloud = if args.cloud {
        let cards = cards(&args.mac).context("in --mac")?;
        Some(cards.into_iter().fold(job.cloud().instance(job.hostname()), Cloud::card))
    } else if job.cloud().is_empty() {
        None
    } else {
        let what = "--ssh-key and --user-data are for an image that boots by itself";
        return Err(hints::hinted(CLOUD_HINT, what));
    };
    let facts = JobFacts::of(&job, boot_timeout, args.state.clone()).elsewhere();
    let mut interrupts = Interrupts::listen()?;
    output::warn_of_closed(&job, printer);
    let timeout = job.timeout();
    let launcher = output::log_of(Launcher::new(job), false, printer)
        .history(keep)
        .state(args.state)
        .host_names(args.host_name)
        .cloud(cloud.clone())
        .boot_timeout(boot_timeout);
    if let Some(status) = launcher.ended().map_err(hints::launch)? {
        printer.note("the job has ended before, with this status; its state is not touched");
        return Ok(ExitStatus(status));
    }
    // A FIFO that gets the log opens when its reader comes.
    let opened = tokio::select! {
        opened = launcher.open() => opened.map_err(hints::launch)?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    let (sandbox, _socket) = listen(&address, opened, printer).await?;
    if let Some(cloud) = &cloud {
        let uuid = SystemUuid::from(cloud.system_uuid()).to_string();
        printer.note(&format!("set the machine's UUID and serial number to {uuid}"));
        printer.event("cloud", json!({ "uuid": uuid }));
    }
    if timeout.is_some() && boot_timeout.is_none() {
        let text = "--timeout begins when the guest fetches its command; the wait for that";
        printer.note(&format!("{text} has no limit (--boot-timeout DURATION sets one)"));
    }
    let report =
        events::follow(sandbox, &mut interrupts, &facts, OwnerInput::default(), printer).await;
    events::conclude(report, &facts, printer)
}

/// Listens at the address, and serves the job there.
async fn listen(
    address: &Address,
    job: OpenJob,
    printer: Printer,
) -> Result<(Sandbox, Option<SocketFile>)> {
    let (sandbox, socket, text) = match address {
        Address::Tcp(address) => {
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
            let text = listener.local_addr()?.to_string();
            (job.serve(NoDelay(listener)), None, text)
        }
        Address::Vsock(port) => {
            let listener = Vsock::bind(*port);
            let listener =
                listener.with_context(|| format!("cannot listen on vsock port {port}"))?;
            (job.serve(listener), None, format!("vsock:{port}"))
        }
        Address::Unix(path) => {
            let (listener, socket) = control::bind(path).await?;
            (job.serve(listener), Some(socket), format!("unix:{}", path.display()))
        }
    };
    let shown = match address {
        Address::Vsock(port) => format!("vsock port {port}"),
        Address::Unix(path) => path.display().to_string(),
        Address::Tcp(_) => text.clone(),
    };
    printer.note(&format!("serving on {shown}"));
    printer.event("serving", json!({ "address": text }));
    Ok((sandbox, socket))
}
