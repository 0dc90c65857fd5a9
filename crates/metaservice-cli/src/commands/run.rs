//! `metaservice run`: boot a machine, run a command in it, exit with its status.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use metaservice_vm::Machine;
use serde_json::json;

use crate::args::{RunArgs, VmArgs};
use crate::cloud;
use crate::conduct::{self, Conclusion};
use crate::interrupts::Interrupts;
use crate::listeners::Card;
use crate::machine::{self, Identity};
use crate::printer::Printer;
use crate::settings::{JobSettings, parse_duration};
use crate::status::ExitStatus;
use crate::terminal;

/// How long a machine may take to power itself off in order.
const POWER_DOWN_GRACE: Duration = Duration::from_secs(10);

/// How long a guest that we start ourselves may take to come.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one may take that an image's own boot loader starts, and all that its services do
/// before ours: minutes under software emulation.
const OWN_BOOT_TIMEOUT: Duration = Duration::from_secs(300);

/// How many of the console's last lines are shown when a machine fails.
const CONSOLE_LINES: usize = 20;

pub(crate) async fn run(args: RunArgs, printer: Printer) -> Result<ExitStatus> {
    let mut settings = JobSettings::resolve(args.job)?;
    settings.terminal = args.tty.then(|| terminal::size().unwrap_or(terminal::USUAL_SIZE));
    let boot_timeout = match &args.vm.boot_timeout {
        Some(timeout) => parse_duration(timeout).context("in --boot-timeout")?,
        None if machine::boots_itself(&args.vm) => OWN_BOOT_TIMEOUT,
        None => BOOT_TIMEOUT,
    };
    let identity = Identity::random(&args.vm);
    if machine::boots_itself(&args.vm) {
        settings.cloud = Some(identity.tell(cloud::describe(&args.cloud, &settings.name)?));
    } else {
        cloud::refuse(&args.cloud, "give --image DISK without --kernel")?;
    }
    let mut interrupts = Interrupts::listen()?;
    let (ours, theirs) = UnixStream::pair().context("cannot make the network card's socket")?;
    let (nic, driver) = machine::attach(&args.vm, settings.limits, ours)?;
    let (service, control) = conduct::start(&settings, printer).await?;
    let driving = tokio::spawn(driver.run());
    let serving = tokio::spawn(service.clone().serve(Card(nic)));

    let machine = tokio::select! {
        machine = boot(&args.vm, &settings, &identity, theirs, printer) => machine?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    let gone = async {
        let how = machine.wait().await.how;
        failure(&format!("the machine ended before the job did: {how}"), &machine)
    };
    let boot = async {
        tokio::time::sleep(boot_timeout).await;
        let after = humantime::format_duration(boot_timeout);
        failure(&format!("the guest never fetched its command within {after}"), &machine)
    };
    let conducting = conduct::conduct(&service, &settings, printer, &mut interrupts, gone, boot);
    let status = match conducting.await? {
        Conclusion::Orderly(status) => status,
        Conclusion::AtOnce(status) => {
            machine.kill().await;
            return Ok(status);
        }
    };
    // The guest's last request deserves its answer.
    let _ = serving.await;

    if machine::is_ours(&args.vm) {
        // As a container's processes when its command has ended. The rest of the console is read.
        machine.kill().await;
    } else {
        power_down(&machine, &mut interrupts, printer).await;
    }
    driving.abort();
    control.end().await;
    Ok(status)
}

/// Ends a machine in the order that its own system wants.
async fn power_down(machine: &Machine, interrupts: &mut Interrupts, printer: Printer) {
    let spinner = printer.spinner("powering off");
    tokio::select! {
        exit = machine.power_down(POWER_DOWN_GRACE) => tracing::info!("{}", exit.how),
        _ = interrupts.next() => drop(machine.kill().await),
    }
    drop(spinner);
}

async fn boot(
    args: &VmArgs,
    settings: &JobSettings,
    identity: &Identity,
    card: UnixStream,
    printer: Printer,
) -> Result<Machine> {
    let spinner = printer.spinner("starting the machine");
    let describe = || machine::describe(args, settings, identity, card);
    let spec = tokio::task::block_in_place(describe)?;
    let machine = Machine::start(spec).await?;
    drop(spinner);
    printer.event("booting", json!({}));
    Ok(machine)
}

/// What went wrong, with what the guest's console said last.
fn failure(what: &str, machine: &Machine) -> Error {
    let lines = machine.console().tail(CONSOLE_LINES);
    if lines.is_empty() {
        return Error::msg(format!("{what}; its console is empty"));
    }
    Error::msg(format!("{what}; last console lines:\n  {}", lines.join("\n  ")))
}
