//! `metaservice image prepare`: an image as it is after its first boot.
//!
//! ```text
//!   copy ─► boot ─► the job: settle, the user's command, forget ─► power off ─► boot again until
//!    │       │                          │                             │      an agent comes ─► kept
//!    └───────┴────── anything goes wrong, a signal ─────┴─────────────┴─────────────► nothing is left
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use metaservice_image::{ImageDraft, ImageName, ImageStore, StoreError, StoredImage};
use metaservice_qemu::{ExitCause, Machine};
use serde_json::json;

use super::at_length;
use crate::args::{CloudArgs, HardwareArgs, Net, PrepareArgs, VmArgs};
use crate::cloud;
use crate::commands::run::{OWN_BOOT_TIMEOUT, Wire};
use crate::conduct::{self, Conclusion};
use crate::image::{self, Image, Prepared};
use crate::interrupts::{Interrupt, Interrupts};
use crate::machine::{self, Identity, Plan};
use crate::printer::{Hint, Printer};
use crate::settings::{JobSettings, MAX_NAME, parse_duration, set_variable};
use crate::status::ExitStatus;
use crate::warm;

/// What the image goes through.
const SCRIPT: &str = include_str!("prepare.sh");

/// The variable by which it comes in, so that what is shown of the job is short; how it is run.
const VARIABLE: &str = "METASERVICE_STEPS";
const STEPS: &str = "eval \"$METASERVICE_STEPS\"";

/// How long an image may take to power itself off: under software emulation half a minute.
const POWER_DOWN_PATIENCE: Duration = Duration::from_secs(180);

pub(super) async fn prepare(args: PrepareArgs, printer: Printer) -> Result<ExitStatus> {
    let store = ImageStore::of_user()?;
    let base = Image::kept(&store, &args.name)?;
    let name: ImageName = match &args.new {
        Some(name) => name.parse().context("in --as")?,
        None => {
            let hint = || Hint("give it a name: --as NEW".to_owned());
            format!("{}-prepared", args.name)
                .parse()
                .map_err(|error| Error::new(hint()).context(error))?
        }
    };
    if store.has(name.as_str()) {
        return Err(image::hinted(StoreError::NameTaken(name), &store));
    }
    let network = base.prepared().map_or(args.net == Net::User, |before| before.network);
    let prepared = Prepared { from: args.name.clone(), network };
    let hardware = args.hardware.clone();
    let stored = base.stored.clone().context("only an image that is kept can be prepared")?;
    // All that can be wrong with the flags is found before anything takes its time.
    let task = Task::resolve(args, base, &name, printer)?;
    let mut interrupts = Interrupts::listen()?;
    let draft = match copy(&store, &stored, printer, &mut interrupts).await? {
        Ok(draft) => draft,
        Err(interrupt) => return Ok(ExitStatus::signal(interrupt.number)),
    };
    let mut status = boot(&task, &draft, printer, &mut interrupts).await?;
    if status == ExitStatus::SUCCESS {
        status = check(hardware, stored, &draft, printer, &mut interrupts).await?;
    }
    if status != ExitStatus::SUCCESS {
        printer.note("nothing is kept");
        return Ok(status);
    }
    match keep(draft, &name, &prepared, printer, &mut interrupts).await? {
        Ok(image) => {
            // Standard output is the log's.
            printer.note(&format!("{name} is kept: {}", image.digest));
            let digest = image.digest.to_string();
            printer.event("prepared", json!({ "name": name.as_str(), "digest": digest }));
            Ok(ExitStatus::SUCCESS)
        }
        Err(interrupt) => Ok(ExitStatus::signal(interrupt.number)),
    }
}

/// What is to be done in which machine.
struct Task {
    plan: Plan,
    identity: Identity,
    settings: JobSettings,
    boot_timeout: Duration,
}

impl Task {
    fn resolve(args: PrepareArgs, base: Image, name: &ImageName, printer: Printer) -> Result<Self> {
        let boot_timeout = match &args.boot_timeout {
            Some(timeout) => parse_duration(timeout).context("in --boot-timeout")?,
            None => OWN_BOOT_TIMEOUT,
        };
        let mut settings = settings(&args, name)?;
        let machine =
            VmArgs { net: args.net, console: args.console, ..VmArgs::plain(args.hardware) };
        let plan = Plan::of(machine, Some(base), &args.cloud, printer)?;
        let identity = Identity::of(&plan)?;
        settings.cloud = Some(identity.tell(cloud::describe(&args.cloud, &settings.name)?));
        Ok(Self { plan, identity, settings, boot_timeout })
    }
}

async fn copy(
    store: &ImageStore,
    base: &StoredImage,
    printer: Printer,
    interrupts: &mut Interrupts,
) -> Result<Result<ImageDraft, Interrupt>> {
    let (store, stored) = (store.clone(), base.clone());
    let total = std::fs::metadata(base.disk().path()).ok().map(|metadata| metadata.len());
    let copying = at_length(printer, "copying", total, interrupts, move |observe| {
        store.draft(&stored, observe)
    });
    Ok(copying.await?)
}

async fn keep(
    draft: ImageDraft,
    name: &ImageName,
    prepared: &Prepared,
    printer: Printer,
    interrupts: &mut Interrupts,
) -> Result<Result<StoredImage, Interrupt>> {
    let (name, words) = (name.clone(), prepared.write());
    let total = std::fs::metadata(draft.disk().path()).ok().map(|metadata| metadata.len());
    let keeping = at_length(printer, "keeping", total, interrupts, move |observe| {
        draft.keep(&name, &words, observe)
    });
    Ok(keeping.await?)
}

/// Boots the copy, has it go through all that, and waits until it has powered itself off.
async fn boot(
    task: &Task,
    draft: &ImageDraft,
    printer: Printer,
    interrupts: &mut Interrupts,
) -> Result<ExitStatus> {
    let Task { plan, identity, settings, boot_timeout } = task;
    let (service, control) = conduct::start(settings, printer).await?;
    let (Wire { driving, serving }, card) =
        Wire::connect(plan, settings, &service, Vec::new(), printer).await?;
    let describe = || machine::describe(plan, Some((settings, identity)), card);
    let spec = tokio::task::block_in_place(describe)?.writable_disk(machine::disk(&draft.disk())?);
    let started = async {
        let spec = machine::with_console(&plan.args, spec).await?;
        Machine::start(spec).await.map_err(machine::not_started)
    };
    let machine = tokio::select! {
        machine = started => machine?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    control.machine.set(machine::tell(plan, &machine, false));
    machine::watch_console(&plan.args, &settings.bounds, &machine, printer);
    step(printer, "booting", "booting a copy of it; its cloud-init may take minutes");
    let gone = async {
        let how = machine.wait().await.cause;
        machine::failure(&format!("the machine ended before it was prepared: {how}"), &machine)
    };
    let late = async {
        tokio::time::sleep(*boot_timeout).await;
        let after = humantime::format_duration(*boot_timeout);
        machine::failure(&format!("no agent has come within {after}"), &machine)
    };
    let known = || machine::condition(&machine);
    let conducting = conduct::conduct(&service, settings, printer, interrupts, gone, late, known);
    let status = match conducting.await? {
        Conclusion::Orderly(status) if status == ExitStatus::SUCCESS => status,
        Conclusion::Orderly(status) | Conclusion::AtOnce(status) => {
            machine.kill().await;
            return Ok(status);
        }
    };
    let _ = serving.await;
    let status = match power_off(&machine, printer, interrupts).await? {
        Some(interrupt) => ExitStatus::signal(interrupt.number),
        None => status,
    };
    driving.abort();
    control.end(interrupts).await;
    Ok(status)
}

/// An image is ready when an agent comes from it by itself. Nothing of this boot stays in it.
async fn check(
    hardware: HardwareArgs,
    stored: StoredImage,
    draft: &ImageDraft,
    printer: Printer,
    interrupts: &mut Interrupts,
) -> Result<ExitStatus> {
    step(printer, "checking", "booting it again, to see that its agent comes");
    let _spinner = printer.spinner("booting it again");
    let image = Image { disk: draft.disk(), stored: Some(stored) };
    let plan = Plan::of(VmArgs::plain(hardware), Some(image), &CloudArgs::default(), printer)?;
    tokio::select! {
        idle = warm::boot_idle(&plan, |spec| spec) => {
            let idle = idle.context("the image does not come back with an agent, and is not kept")?;
            idle.machine.kill().await;
            Ok(ExitStatus::SUCCESS)
        }
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}

/// What is not written down by an orderly end is not there.
async fn power_off(
    machine: &Machine,
    printer: Printer,
    interrupts: &mut Interrupts,
) -> Result<Option<Interrupt>> {
    step(printer, "poweringOff", "powering off");
    let _spinner = printer.spinner("powering off");
    let exit = tokio::select! {
        exit = machine.power_down(POWER_DOWN_PATIENCE) => exit,
        interrupt = interrupts.next() => {
            machine.kill().await;
            return Ok(Some(interrupt));
        }
    };
    if exit.cause != ExitCause::GuestPoweredOff {
        let hint = "an image has to hear its power button, as by systemd-logind or acpid";
        let what = format!("the image did not power off in order, and is not kept: {}", exit.cause);
        return Err(Error::new(Hint(hint.to_owned())).context(what));
    }
    Ok(None)
}

/// Says where we are: each of these takes its time.
fn step(printer: Printer, event: &str, text: &str) {
    printer.note(text);
    printer.event(event, json!({}));
}

fn settings(args: &PrepareArgs, name: &ImageName) -> Result<JobSettings> {
    let mut env = BTreeMap::new();
    for variable in &args.env {
        set_variable(variable, &mut env).context("in --env")?;
    }
    let network = if args.net == Net::User { "user" } else { "none" };
    env.insert(VARIABLE.to_owned(), SCRIPT.to_owned());
    let words = ["sh", "-c", STEPS, "prepare", network].map(str::to_owned);
    let command = words.into_iter().chain(args.command.iter().cloned()).collect();
    let timeout = parse_duration(&args.timeout).context("in --timeout")?;
    let plain = JobSettings::plain(host_name(name), command, env);
    let words = ["metaservice", "image", "prepare", &args.name].map(str::to_owned);
    let shown = Some(words.into_iter().chain(args.command.iter().cloned()).collect());
    Ok(JobSettings { timeout: Some(timeout), shown, ..plain })
}

/// What the machines of an image are called, of which nobody says it: as the image, where host
/// names are made of the same.
fn host_name(name: &ImageName) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = name.as_str().chars().map(plain).take(MAX_NAME).collect();
    name.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::parse_name;

    #[test]
    fn the_name_of_an_image_becomes_one_of_a_host() {
        for (image, host) in [("debian-12.5_x", "debian-12-5-x"), ("a", "a"), ("a...", "a")] {
            assert_eq!(host_name(&image.parse().unwrap()), host);
        }
        let longest = host_name(&"x".repeat(128).parse().unwrap());
        assert_eq!(parse_name(Some(longest.clone())).unwrap(), longest);
    }
}
