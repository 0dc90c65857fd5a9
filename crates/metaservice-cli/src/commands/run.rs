//! `metaservice run`: boot a machine, run a command in it, exit with its status.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use metaservice::MetaService;
use metaservice_nic::{StaleConnection, Statistics};
use metaservice_qemu::{Machine, SnapshotError, StartError};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::args::RunArgs;
use crate::cloud;
use crate::conduct::{self, Conclusion};
use crate::interrupts::Interrupts;
use crate::listeners::Card;
use crate::machine::{self, Identity, Plan};
use crate::printer::Printer;
use crate::settings::{JobSettings, parse_duration};
use crate::status::ExitStatus;
use crate::terminal;
use crate::warm::{self, Warm};

/// How long a machine may take to power itself off in order.
const POWER_DOWN_GRACE: Duration = Duration::from_secs(10);

/// How long it may take to read what a machine has sent before it ended. It is there already, but
/// who takes the log may be slow.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What a machine's end costs a command that was running.
const LOST: &str = "; what the command wrote and the guest had not sent is lost";

/// How long a guest that we start ourselves may take to come.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one may take that an image's own boot loader starts, and all that its services do
/// before ours: minutes under software emulation.
pub(super) const OWN_BOOT_TIMEOUT: Duration = Duration::from_secs(300);

/// How long the agent of a saved machine may take until it fetches its job: some 100 ms, and what
/// its image makes anew, as the keys of a server.
const GO_ON_PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: RunArgs, printer: Printer) -> Result<ExitStatus> {
    let mut settings = JobSettings::resolve(args.job)?;
    if args.tty {
        settings.terminal = Some(terminal::size().unwrap_or(terminal::USUAL_SIZE));
        terminal::tell_type(&mut settings.env);
    }
    let plan = Plan::resolve(args.vm, &args.cloud, printer)?;
    plan.check_outputs(&settings)?;
    let boot_timeout = match &plan.args.boot_timeout {
        Some(timeout) => parse_duration(timeout).context("in --boot-timeout")?,
        None if plan.boots_itself() => OWN_BOOT_TIMEOUT,
        None => BOOT_TIMEOUT,
    };
    settings.ends_with_us = plan.may_be_killed();
    let identity = Identity::of(&plan)?;
    if plan.boots_itself() {
        settings.cloud = Some(identity.tell(cloud::describe(&args.cloud, &settings.name)?));
    }
    let mut interrupts = Interrupts::listen()?;
    // A FIFO to write to opens when its reader comes.
    let (service, control) = tokio::select! {
        started = conduct::start(&settings, printer) => started?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };

    let Started { machine, mut wire, booted } = tokio::select! {
        started = start(&plan, &settings, &identity, &service, printer) => started?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    plan.forget_boot();
    control.machine.set(machine::tell(&plan, &machine, !booted));
    let gone = async {
        let how = machine.wait().await.cause;
        wire.drain(&service).await;
        let lost = if service.is_fetched() { LOST } else { "" };
        let what = format!("the machine ended before the job did: {how}{lost}");
        machine::failure(&what, &machine)
    };
    let boot = async {
        tokio::time::sleep(boot_timeout).await;
        let after = humantime::format_duration(boot_timeout);
        machine::failure(&format!("the guest never fetched its command within {after}"), &machine)
    };
    let known = || machine::condition(&machine);
    let conducting =
        conduct::conduct(&service, &settings, printer, &mut interrupts, gone, boot, known);
    let status = match conducting.await? {
        Conclusion::Orderly(status) => status,
        Conclusion::AtOnce(status) => {
            machine.kill().await;
            return Ok(status);
        }
    };
    let Wire { driving, serving } = wire;
    // The guest's last request deserves its answer.
    let _ = serving.await;

    if plan.may_be_killed() {
        // As a container's processes when its command has ended. The rest of the console is read.
        machine.kill().await;
    } else {
        power_down(&machine, &mut interrupts, printer).await;
    }
    driving.abort();
    control.end(&mut interrupts).await;
    if booted
        && plan.image.is_none()
        && plan.may_be_saved()
        && let Err(error) = warm::make_later(&plan.args.hardware)
    {
        tracing::debug!(%error, "no machine is saved for the next run");
    }
    Ok(status)
}

/// Ends a machine in the order that its own system wants.
async fn power_down(machine: &Machine, interrupts: &mut Interrupts, printer: Printer) {
    let spinner = printer.spinner("powering off");
    tokio::select! {
        exit = machine.power_down(POWER_DOWN_GRACE) => tracing::info!("{}", exit.cause),
        _ = interrupts.next() => drop(machine.kill().await),
    }
    drop(spinner);
}

/// A machine that runs, and the tasks of its network card.
struct Started {
    machine: Machine,
    wire: Wire,
    /// Whether it went the long way.
    booted: bool,
}

pub(super) struct Wire {
    pub(super) driving: JoinHandle<Result<Statistics, metaservice_nic::Error>>,
    pub(super) serving: JoinHandle<()>,
}

impl Wire {
    /// Takes in what a machine that has ended sent before: the last of the log, and perhaps a result.
    pub(super) async fn drain(&mut self, service: &MetaService) {
        let drained = async {
            // The card reads what is left in its socket, and ends its connections.
            let _ = (&mut self.driving).await;
            service.log_idle().await;
        };
        let _ = tokio::time::timeout(LAST_WORDS, drained).await;
    }

    /// A card that serves; the machine's end of it.
    pub(super) async fn connect(
        plan: &Plan,
        settings: &JobSettings,
        service: &MetaService,
        stale: Vec<StaleConnection>,
        printer: Printer,
    ) -> Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair().context("cannot make the network card's socket")?;
        let pcap = machine::pcap(&plan.args, &settings.bounds, printer).await?;
        let (nic, driver) = machine::attach(pcap, settings.bounds.card, ours, stale)?;
        let driving = tokio::spawn(driver.run());
        let serving = tokio::spawn(service.clone().serve(Card(nic)));
        Ok((Self { driving, serving }, theirs))
    }
}

/// Starts the machine: goes on from a saved one where there is one, else boots.
async fn start(
    plan: &Plan,
    settings: &JobSettings,
    identity: &Identity,
    service: &MetaService,
    printer: Printer,
) -> Result<Started> {
    let spinner = printer.spinner("starting the machine");
    if plan.may_be_saved() {
        match tokio::task::block_in_place(|| warm::find(plan)) {
            Ok(None) => {}
            Ok(Some(saved)) => match go_on(plan, settings, &saved, service, printer).await? {
                Ok((machine, wire)) => {
                    printer.event("continuing", json!({}));
                    return Ok(Started { machine, wire, booted: false });
                }
                Err(error) => {
                    // It may be the host's fault, and one of an image is not made again by itself.
                    if plan.image.is_none() || is_unfit(&error) {
                        saved.remove();
                    }
                    // It may have claimed the job; it is dead by now.
                    service.release();
                    let why = error.context("the saved machine does not go on, and one is booted");
                    printer.note(&format!("{why:#}"));
                }
            },
            // What is wrong with the machine that was asked for is wrong with one that boots.
            Err(error) if !is_of_saved(&error) => return Err(error),
            Err(error) => printer.note(&format!("{:#}", error.context("booting instead"))),
        }
    }
    let (wire, card) = Wire::connect(plan, settings, service, Vec::new(), printer).await?;
    let describe = || machine::describe(plan, Some((settings, identity)), card);
    let spec = tokio::task::block_in_place(describe)?;
    let spec = machine::with_console(&plan.args, spec).await?;
    let machine = Machine::start(spec).await.map_err(machine::not_started)?;
    machine::watch_console(&plan.args, &settings.bounds, &machine, printer);
    drop(spinner);
    printer.event("booting", json!({}));
    Ok(Started { machine, wire, booted: true })
}

/// Whether it is the saved machine that QEMU does not take.
fn is_unfit(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(StartError::Restore(_))))
}

/// Whether the folder of the saved machines is at fault, or one of them.
fn is_of_saved(error: &anyhow::Error) -> bool {
    let saved = error.chain().find_map(|cause| cause.downcast_ref::<SnapshotError>());
    saved.is_some_and(|error| !matches!(error, SnapshotError::Spec(_)))
}

/// Goes on from a saved machine, as far as to where its agent has the job; `Ok(Err)` when that
/// machine does not.
async fn go_on(
    plan: &Plan,
    settings: &JobSettings,
    saved: &Warm,
    service: &MetaService,
    printer: Printer,
) -> Result<Result<(Machine, Wire)>> {
    let stale = saved.stale_connections();
    let (wire, card) = Wire::connect(plan, settings, service, stale, printer).await?;
    let spec = tokio::task::block_in_place(|| machine::describe(plan, None, card))?;
    let spec = machine::with_console(&plan.args, spec).await?;
    let went_on = async {
        let machine =
            Machine::start(spec.restore_from(saved.saved.files(), saved.saved.state().to_vec()))
                .await?;
        tokio::select! {
            () = service.fetched() => Ok(machine),
            exit = machine.wait() => Err(anyhow!("the machine ended: {}", exit.cause)),
            () = tokio::time::sleep(GO_ON_PATIENCE) => Err(anyhow!("its agent is silent")),
        }
    };
    match went_on.await {
        Ok(machine) => Ok(Ok((machine, wire))),
        Err(error) => {
            wire.serving.abort();
            wire.driving.abort();
            Ok(Err(error))
        }
    }
}
