//! `metaservice serve`: the service of one job for a machine that somebody else starts.

use anyhow::{Context, Error, Result};
use metaservice::{Cloud, MetaService};
use metaservice_qemu::SystemUuid;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::args::ServeArgs;
use crate::cloud;
use crate::conduct::{self, Conclusion};
use crate::interrupts::Interrupts;
use crate::ledger::Ledger;
use crate::listeners::{NoDelay, Vsock};
use crate::printer::Printer;
use crate::settings::{Address, JobSettings, parse_duration};
use crate::sockets::{self, SocketFile};
use crate::status::ExitStatus;

pub(crate) async fn serve(args: ServeArgs, printer: Printer) -> Result<ExitStatus> {
    let address = Address::parse(&args.listen)?;
    let boot_timeout = args.boot_timeout.as_deref().map(parse_duration);
    let boot_timeout = boot_timeout.transpose().context("in --boot-timeout")?;
    let mut settings = JobSettings::resolve(args.job)?;
    settings.host_names = args.host_name;
    settings.state = args.state;
    if args.cloud {
        let described = cloud::describe(&args.image, &settings.name)?;
        settings.cloud = Some(cloud::cards(&args.mac)?.into_iter().fold(described, Cloud::card));
    } else {
        cloud::refuse(&args.image, "give --cloud")?;
    }
    let mut interrupts = Interrupts::listen()?;
    if let Some(status) = Ledger::open(settings.state.as_deref())?.status() {
        // Another job in the same folder has not ended: it is refused.
        conduct::job(&settings).check_state()?;
        printer.note("the job has ended before, with this status; its state is not touched");
        return Ok(status);
    }
    // A FIFO to write to opens when its reader comes.
    let (service, control) = tokio::select! {
        started = conduct::start(&settings, printer) => started?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    let (serving, _socket) = listen(&address, service.clone(), printer).await?;
    if let Some(cloud) = &settings.cloud {
        let uuid = SystemUuid::from(cloud.system_uuid()).to_string();
        printer.note(&format!("the machine is to have this UUID and serial number: {uuid}"));
        printer.event("cloud", json!({ "uuid": uuid }));
    }
    if settings.timeout.is_some() && boot_timeout.is_none() {
        let text = "--timeout begins when the guest fetches its command; the wait for that";
        printer.note(&format!("{text} has no limit (--boot-timeout DURATION sets one)"));
    }
    let late = async {
        let Some(limit) = boot_timeout else { return std::future::pending().await };
        tokio::time::sleep(limit).await;
        let limit = humantime::format_duration(limit);
        Error::msg(format!("no guest has fetched its command within {limit}"))
    };
    // Somebody else's machine may come late, and come back: it is never given up.
    let gone = std::future::pending();
    let conclusion =
        conduct::conduct(&service, &settings, printer, &mut interrupts, gone, late, String::new)
            .await?;
    match conclusion {
        Conclusion::AtOnce(status) => Ok(status),
        Conclusion::Orderly(status) => {
            // The guest's last request deserves its answer.
            let _ = serving.await;
            control.end(&mut interrupts).await;
            Ok(status)
        }
    }
}

async fn listen(
    address: &Address,
    service: MetaService,
    printer: Printer,
) -> Result<(JoinHandle<()>, Option<SocketFile>)> {
    let text = match address {
        Address::Tcp(address) => {
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
            let text = listener.local_addr()?.to_string();
            printer.note(&format!("serving on {text}"));
            printer.event("serving", json!({ "address": text }));
            return Ok((tokio::spawn(service.serve(NoDelay(listener))), None));
        }
        Address::Unix(path) => path,
        Address::Vsock(port) => {
            let listener = Vsock::bind(*port);
            let listener =
                listener.with_context(|| format!("cannot listen on vsock port {port}"))?;
            printer.note(&format!("serving on vsock port {port}"));
            printer.event("serving", json!({ "address": format!("vsock:{port}") }));
            return Ok((tokio::spawn(service.serve(listener)), None));
        }
    };
    let (listener, socket) = sockets::bind(text).await?;
    printer.note(&format!("serving on {}", text.display()));
    printer.event("serving", json!({ "address": format!("unix:{}", text.display()) }));
    Ok((tokio::spawn(service.serve(listener)), Some(socket)))
}
