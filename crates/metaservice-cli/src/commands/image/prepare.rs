//! `metaservice image prepare`: creates an image that has its first boot behind it.
//!
//! ```text
//! copy ─► boot ─► job: settle, the user's command, forget ─► power off ─► second boot ─► keep
//!   │       │                       │                            │             │
//!   └───────┴───────────────────────┴─ error or signal ──────────┴─────────────┴──► no image
//! ```
//!
//! The image is kept if an agent comes in the second boot.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use metaservice_image::{Disk, ImageDraft, ImageName, ImageStore, StoreError, StoredImage};
use metaservice_qemu::ExitCause;
use metaservice_sandbox::job::{Job, JobName, set_variable};
use metaservice_sandbox::life::End;
use metaservice_sandbox::machine::{Image, Plan, Prepared, disk, snapshot};
use metaservice_sandbox::spec::{JobSpec, NetworkMode, StderrSpec};
use metaservice_sandbox::{Launcher, Report};
use serde_json::json;

use super::progress::with_progress;
use crate::completions;
use crate::description;
use crate::flags::{CloudArgs, HardwareArgs, PolicyArgs};
use crate::hints;
use crate::interrupts::{Interrupt, Interrupts};
use crate::output::AsyncOutput;
use crate::output::events::{self, JobFacts};
use crate::output::printer::{Hint, Printer};
use crate::status::ExitStatus;
use crate::terminal::owner::OwnerInput;

const HELP: &str = "\
Steps:
  1. The machine boots from a copy of the image. cloud-init does its work, with your user data, and
     the agent installs itself.
  2. With a network, the package manager fetches its package lists.
  3. COMMAND runs as root. Its log is printed.
  4. cloud-init is disabled. What must be unique to each machine is removed: the machine id, and the
     host keys of the ssh server if systemd can create new ones.
  5. The machine powers off, and boots once more. When the agent comes, the copy becomes an image.

If a step fails, no image is kept. If COMMAND fails, its exit status is the exit status.

Examples:
  metaservice image prepare debian --as debian-git --net open -- apt-get install -y git
  metaservice image prepare debian --net-policy apt -- apt-get install -y git
  metaservice run --image debian-git -- git --version";

/// Create an image that boots faster, with your packages.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Prepare {
    /// The name of the image, or sha256:DIGEST.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(completions::images))]
    pub(crate) name: String,
    /// The name of the new image [default: NAME-prepared].
    #[arg(long = "as", value_name = "NEW")]
    pub(crate) new: Option<String>,
    /// Set a variable of the command. Without =VALUE, pass your own. Repeatable.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    #[command(flatten)]
    pub(crate) cloud: CloudArgs,
    #[command(flatten)]
    pub(crate) hardware: HardwareArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// How long the machine may take until its agent comes [default: 5m].
    #[arg(long, value_name = "DURATION")]
    pub(crate) boot_timeout: Option<String>,
    /// How long the other steps may take together.
    #[arg(long, value_name = "DURATION", default_value = "2h")]
    pub(crate) timeout: String,
    /// Write the console of the machine to a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) console: Option<PathBuf>,
    /// A command that runs as root, with its arguments.
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

/// The script of the preparation.
const SCRIPT: &str = include_str!("prepare.sh");

/// The variable that passes the script, so that the shown command stays short; and the command that
/// runs it.
const VARIABLE: &str = "METASERVICE_STEPS";
const STEPS: &str = "eval \"$METASERVICE_STEPS\"";

/// How long an image may take to power off. Half a minute is normal under software emulation.
const POWER_OFF_TIMEOUT: Duration = Duration::from_secs(180);

pub(super) async fn prepare(args: Prepare, printer: Printer) -> Result<ExitStatus> {
    let store = ImageStore::of_user()?;
    let base = Image::stored(&store, &args.name).map_err(|error| hints::store(error, &store))?;
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
        return Err(hints::store(StoreError::NameTaken(name), &store));
    }
    let prepared = Prepared { from: args.name.clone() };
    let hardware = args.hardware.clone();
    let stored = base.stored.clone().context("only a stored image can be prepared")?;
    // Check all flags before the first slow step.
    let (job, plan) = resolve(args, base, &name)?;
    let mut interrupts = Interrupts::listen()?;
    let draft = match copy(&store, &stored, printer, &mut interrupts).await? {
        Ok(draft) => draft,
        Err(interrupt) => return Ok(ExitStatus::signal(interrupt.number)),
    };
    let mut status = boot(job, plan, &draft, printer, &mut interrupts).await?;
    if status == ExitStatus::SUCCESS {
        status = check(hardware, stored, &draft, printer, &mut interrupts).await?;
    }
    if status != ExitStatus::SUCCESS {
        printer.note("no image is kept");
        return Ok(status);
    }
    match keep(draft, &name, &prepared, printer, &mut interrupts).await? {
        Ok(image) => {
            // Standard output has the log of the command.
            printer.note(&format!("{name} is ready: {}", image.digest));
            let digest = image.digest.to_string();
            printer.event("prepared", json!({ "name": name.as_str(), "digest": digest }));
            Ok(ExitStatus::SUCCESS)
        }
        Err(interrupt) => Ok(ExitStatus::signal(interrupt.number)),
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
    let copying = with_progress(printer, "copying", total, interrupts, move |observe| {
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
    let keeping = with_progress(printer, "keeping", total, interrupts, move |observe| {
        draft.keep(&name, &words, observe)
    });
    Ok(keeping.await?)
}

/// Boots the copy, runs the steps in it, and waits until it has powered off.
async fn boot(
    job: Job,
    plan: Plan,
    draft: &ImageDraft,
    printer: Printer,
    interrupts: &mut Interrupts,
) -> Result<ExitStatus> {
    let facts = JobFacts::of(&job, Some(plan.boot_timeout()), None);
    let launcher = Launcher::new(job)
        .log(AsyncOutput::new())
        .write_disk(disk(&draft.disk())?, POWER_OFF_TIMEOUT);
    printer.note("booting a copy of it; its cloud-init may take minutes");
    let sandbox = launcher.launch(plan).await.map_err(hints::launch)?;
    let report = events::follow(sandbox, interrupts, &facts, OwnerInput::default(), printer).await;
    match report.outcome.end {
        End::NeverFetched => {
            let after = humantime::format_duration(facts.boot_timeout.unwrap_or_default());
            let what = format!("no agent has come within {after}");
            Err(Error::msg(hints::with_console(&what, &report.console)))
        }
        End::MachineGone => {
            let how = report.exit.as_ref().map(|exit| exit.cause.to_string()).unwrap_or_default();
            let what = format!("the machine ended before it was prepared: {how}");
            Err(Error::msg(hints::with_console(&what, &report.console)))
        }
        End::Result if report.status() == 0 => powered_off(&report, interrupts),
        _ => events::conclude(report, &facts, printer),
    }
}

/// Refuses an image that did not power off cleanly, because its disk may be incomplete.
fn powered_off(report: &Report, interrupts: &mut Interrupts) -> Result<ExitStatus> {
    match &report.exit {
        Some(exit) if exit.cause == ExitCause::GuestPoweredOff => Ok(ExitStatus::SUCCESS),
        // A signal ended the wait.
        _ if interrupts.last().is_some() => {
            Ok(interrupts.last().map_or(ExitStatus::FAILED, |last| ExitStatus::signal(last.number)))
        }
        exit => {
            let how = exit.as_ref().map(|exit| exit.cause.to_string()).unwrap_or_default();
            let hint = "an image has to hear its power button, as by systemd-logind or acpid";
            let what = format!("the image did not power off in order, and is not kept: {how}");
            Err(hints::hinted(hint, what))
        }
    }
}

/// Boots the image once more. It is ready if its agent comes. This boot does not change the image.
async fn check(
    hardware: HardwareArgs,
    stored: StoredImage,
    draft: &ImageDraft,
    printer: Printer,
    interrupts: &mut Interrupts,
) -> Result<ExitStatus> {
    printer.note("booting it again, to see that its agent comes");
    printer.event("checking", json!({}));
    let _spinner = printer.spinner("booting it again");
    let plan = check_plan(&hardware, draft.disk(), stored)?;
    tokio::select! {
        checked = snapshot::check(&plan) => {
            checked
                .map_err(hints::snapshot)
                .context("the image does not come back with an agent, and is not kept")?;
            Ok(ExitStatus::SUCCESS)
        }
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}

fn check_plan(hardware: &HardwareArgs, disk: Disk, stored: StoredImage) -> Result<Plan> {
    let mut spec = JobSpec::new(["check"]);
    spec.machine = description::hardware(hardware)?;
    let job = Job::try_from(spec).map_err(hints::job)?;
    let image = Image { disk, stored: Some(stored) };
    Plan::with_image(&job, image).map_err(|error| hints::plan(error, CLOUD_HINT))
}

/// The hint if keys or user data are given for an image without cloud-init.
const CLOUD_HINT: &str = "prepare a stock image";

/// Builds the job that prepares the image, and the plan of its machine.
fn resolve(args: Prepare, base: Image, name: &ImageName) -> Result<(Job, Plan)> {
    let network = description::policy(args.policy);
    let is_none = matches!(network.mode, None | Some(NetworkMode::None));
    let is_none = is_none && network.allow.is_empty() && network.policy.is_none();
    let word = if is_none { "none" } else { "some" };
    let words = ["sh", "-c", STEPS, "prepare", word].map(str::to_owned);
    let mut spec = JobSpec::new(words.into_iter().chain(args.command.iter().cloned()));
    for variable in &args.env {
        set_variable(variable, &mut spec.env).context("in --env")?;
    }
    spec.env.insert(VARIABLE.to_owned(), SCRIPT.to_owned());
    spec.name = Some(host_name(name));
    // One log of all steps, in the order in which they write.
    spec.stderr = Some(StderrSpec::Merged);
    spec.timeout = description::period(Some(&args.timeout), "--timeout")?;
    spec.cloud = description::cloud_data(args.cloud);
    spec.machine = description::hardware(&args.hardware)?;
    spec.machine.network = network;
    spec.machine.console = args.console;
    spec.machine.boot_timeout =
        description::period(args.boot_timeout.as_deref(), "--boot-timeout")?;
    let words = ["metaservice", "image", "prepare", &args.name].map(str::to_owned);
    let job = Job::try_from(spec).map_err(hints::job)?;
    let job = job.shown_as(words.into_iter().chain(args.command).collect());
    let plan = Plan::with_image(&job, base).map_err(|error| hints::plan(error, CLOUD_HINT))?;
    Ok((job, plan))
}

/// Returns the host name for the image's machines: the name of the image, with dashes for
/// characters that a host name cannot have.
fn host_name(name: &ImageName) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = name.as_str().chars().map(plain).take(JobName::MAX).collect();
    name.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_image_becomes_one_of_a_host() {
        for (image, host) in [("debian-12.5_x", "debian-12-5-x"), ("a", "a"), ("a...", "a")] {
            assert_eq!(host_name(&image.parse().unwrap()), host);
        }
        let longest = host_name(&"x".repeat(128).parse().unwrap());
        assert_eq!(longest.parse::<JobName>().unwrap().as_str(), longest);
    }
}
