//! What the errors of the crates below mean on the command line: the flag that is wrong, and what
//! to do about it.

use std::time::Duration;

use anyhow::{Error, Result};
use metaservice::{Ending, FailureCode, Reason};
use metaservice_egress::AddressClass;
use metaservice_egress::file::PolicyError;
use metaservice_image::{ImageName, ImageStore, StoreError};
use metaservice_qemu::MissingTools;
use metaservice_sandbox::control::ControlError;
use metaservice_sandbox::history::{ClaimError, PastJob};
use metaservice_sandbox::job::{
    Field, InvalidJob, InvalidMachine, InvalidNetwork, InvalidVolume, Limits, OutputField,
};
use metaservice_sandbox::life::End;
use metaservice_sandbox::machine::snapshot::SnapshotError;
use metaservice_sandbox::machine::{DescribeError, ImageError, MachineError, PlanError};
use metaservice_sandbox::{LaunchError, Report};

use crate::local_queue;
use crate::output::printer::{Hint, printable};

/// An error with what to do about it.
pub(crate) fn hinted(hint: impl Into<String>, what: impl Into<String>) -> Error {
    Error::new(Hint(hint.into())).context(what.into())
}

/// A description that flags have made.
pub(crate) fn job(error: InvalidJob) -> Error {
    match error {
        InvalidJob::Field { field, cause } => {
            Error::new(cause).context(format!("in {}", flag(&field)))
        }
        InvalidJob::SameOutput { first, second, path } => {
            let (first, second) = (output_flag(&first), output_flag(&second));
            Error::msg(format!("{first} and {second} would both write {}", path.display()))
        }
        InvalidJob::SecretsWithoutSession => {
            Error::msg("--secret needs a session: without --session off")
        }
        InvalidJob::SecretWithValue => Error::msg(
            "--secret takes the name of a variable of the host: a value here is visible to others",
        ),
        InvalidJob::SecretNotSet(name) => Error::msg(format!("--secret {name} is not set")),
        InvalidJob::Machine(error) => described_machine(error),
        error => error.into(),
    }
}

fn described_machine(error: InvalidMachine) -> Error {
    match error {
        InvalidMachine::Cpus(error) => Error::new(error).context("in --cpus"),
        InvalidMachine::Memory(error) => Error::new(error).context("in --memory"),
        InvalidMachine::Network(error) => network(error),
        InvalidMachine::KernelWithoutInitrd(kernel) => {
            let kernel = kernel.display();
            Error::msg(format!("--kernel {kernel} needs the --initrd that belongs to it"))
        }
        InvalidMachine::NothingToShow => Error::msg("--show and --hide need --rootfs or --volume"),
        InvalidMachine::Rootfs(error) => Error::new(error).context("in --rootfs"),
        InvalidMachine::Volume { volume, cause } => {
            let hint = match cause {
                InvalidVolume::NoDirectory(_) => Some("copy a file into the guest with --copy-in"),
                InvalidVolume::Needed(ref place) if place == "/" => Some("use --rootfs DIR"),
                _ => None,
            };
            let error = Error::new(cause);
            let error = match hint {
                Some(hint) => hinted(hint, error.to_string()),
                None => error,
            };
            error.context(format!("in --volume {volume}"))
        }
        InvalidMachine::SamePlace(place) => {
            Error::msg(format!("two --volume would be at {place} in the guest"))
        }
        error => error.into(),
    }
}

/// A network that flags have described.
pub(crate) fn network(error: InvalidNetwork) -> Error {
    match error {
        InvalidNetwork::Allow { rule, cause } => {
            Error::new(cause).context(format!("in --allow-net {rule}"))
        }
        InvalidNetwork::Deny { rule, cause } => {
            Error::new(cause).context(format!("in --deny-net {rule}"))
        }
        InvalidNetwork::Policy(error) => policy(error).context("in --net-policy"),
        InvalidNetwork::Publish(error) => Error::new(error).context("in --publish"),
        InvalidNetwork::None => {
            Error::msg("--net none goes without --allow-net, --deny-net and --net-policy")
        }
        InvalidNetwork::NothingAllowed => hinted(
            "add --net open, --allow-net RULE or --net-policy FILE",
            "--deny-net denies what is denied without it",
        ),
        error => error.into(),
    }
}

/// A policy that cannot be read.
fn policy(error: PolicyError) -> Error {
    match &error {
        PolicyError::NoPreset { .. } => hinted("metaservice net presets", error.to_string()),
        _ => error.into(),
    }
}

/// What an address is, in words.
pub(crate) fn address_class(class: AddressClass) -> &'static str {
    match class {
        AddressClass::Public => "a public address",
        AddressClass::Loopback => "the loopback interface; write host:PORT",
        AddressClass::Private => "a private address",
        AddressClass::LinkLocal => "a link-local address",
        AddressClass::SharedAddress => "an address of a provider's own network",
        AddressClass::Multicast => "a multicast or broadcast address",
        AddressClass::Metadata => "the metadata service of a cloud",
        AddressClass::Own => "an address of this host",
        _ => "a reserved address",
    }
}

fn flag(field: &Field) -> String {
    match field {
        Field::Name => "--name".to_owned(),
        Field::Env => "--env".to_owned(),
        Field::Secrets => "--secret".to_owned(),
        Field::CopyIn(path) => format!("--copy-in {}", path.display()),
        Field::Artifact(path) => format!("--artifact {path}"),
        Field::Limit(text) => format!("--limit {text}"),
        Field::SshKey(key) => format!("--ssh-key {key}"),
        Field::UserData(path) => format!("--user-data {}", path.display()),
        Field::Timeout => "--timeout".to_owned(),
        Field::Workdir => "--workdir".to_owned(),
        Field::User => "--user".to_owned(),
        Field::Hostname => "--hostname".to_owned(),
        Field::Entrypoint => "--entrypoint".to_owned(),
        field => field.to_string(),
    }
}

/// The flag of an output, as the user writes it.
pub(crate) fn output_flag(output: &OutputField) -> String {
    match output {
        OutputField::Artifact(path) => format!("--artifact {path}"),
        OutputField::Log => "--log".to_owned(),
        OutputField::Console => "--console".to_owned(),
        OutputField::Pcap => "--pcap".to_owned(),
        OutputField::NetworkLog => "--net-log".to_owned(),
        output => output.to_string(),
    }
}

/// A machine that cannot be planned. `cloud` says how cloud-init is had.
pub(crate) fn plan(error: PlanError, cloud: &str) -> Error {
    match error {
        PlanError::Image(error) => image(error).context("in --image"),
        PlanError::CloudDataWithoutImage => {
            hinted(cloud, "--ssh-key and --user-data are for an image that boots by itself")
        }
        PlanError::CloudDataForPrepared => hinted(
            "give them to \"metaservice image prepare\" when it is made of a stock image",
            "the cloud-init of a prepared image does not run again: it takes no keys or user data",
        ),
        error => error.into(),
    }
}

fn image(error: ImageError) -> Error {
    match error {
        ImageError::Store(error) => match ImageStore::of_user() {
            Ok(store) => self::store(error, &store),
            Err(_) => error.into(),
        },
        ImageError::NotFound { cause, .. } => {
            let what = format!("{:#}", Error::new(cause));
            hinted("it is the name of no image either: metaservice image ls", what)
        }
        error => error.into(),
    }
}

/// An error of the image store, with the names that there are.
pub(crate) fn store(error: StoreError, store: &ImageStore) -> Error {
    let hint = match &error {
        StoreError::NoSuchImage(word) if word == "builtin" => {
            "that is the built-in guest, which is no image".to_owned()
        }
        StoreError::NoSuchImage(word) if word.contains('/') => {
            format!("it is a file: metaservice image import {word}")
        }
        StoreError::NoSuchImage(word) if word.starts_with("sha256:") => {
            "write 8 digits of it or more, as in metaservice image ls".to_owned()
        }
        StoreError::NoSuchImage(_) => {
            let listed = store.list().unwrap_or_default();
            let names = listed.0.iter().flat_map(|image| &image.names).map(ImageName::as_str);
            let names: Vec<_> = names.collect();
            if names.is_empty() {
                "there is none yet: metaservice image import FILE".to_owned()
            } else {
                format!("there are {}", names.join(", "))
            }
        }
        StoreError::NameTaken(name) => {
            format!("choose another name, or remove that one: metaservice image rm {name}")
        }
        _ => return error.into(),
    };
    hinted(hint, error.to_string())
}

/// A job that cannot be launched.
pub(crate) fn launch(error: LaunchError) -> Error {
    match error {
        LaunchError::Control(error) => control(error),
        LaunchError::Log { path, cause } => {
            Error::new(cause).context(format!("cannot write --log {}", path.display()))
        }
        error => error.into(),
    }
}

/// A job that is not found, or a control socket that cannot be made.
pub(crate) fn control(error: ControlError) -> Error {
    let hint = match &error {
        ControlError::NotFound { name, .. } if local_queue::may_have(name) => of_queue(name),
        ControlError::NameTaken(_) => {
            "choose another one with --name, or see `metaservice ps`".to_owned()
        }
        ControlError::NotFound { running, .. } if running.is_empty() => {
            "none is running: `metaservice run` starts one".to_owned()
        }
        ControlError::NotFound { running, .. } => format!("running: {}", running.join(", ")),
        ControlError::Running(_) => "rm --force kills it and its machine".to_owned(),
        ControlError::Ended { name, past } => ended(name, past),
        ControlError::Directory(_) | ControlError::Claim { cause: ClaimError::Socket(_), .. } => {
            "set XDG_STATE_HOME to a directory of yours, on a local file system".to_owned()
        }
        _ => return error.into(),
    };
    hinted(hint, format!("{:#}", Error::new(error)))
}

fn of_queue(name: &str) -> String {
    format!("{name} may be the id of a job of the queue of this host: add --queue local")
}

/// As [`control`], for a verb that also takes jobs that have ended.
pub(crate) fn any_job(error: ControlError) -> Error {
    let ControlError::NotFound { name, running, .. } = &error else { return control(error) };
    if local_queue::may_have(name) {
        return control(error);
    }
    let all = "`metaservice ps -a` lists all jobs, also those that have ended";
    let hint = match running.is_empty() {
        true => all.to_owned(),
        false => format!("running: {}; {all}", running.join(", ")),
    };
    hinted(hint, format!("{:#}", Error::new(error)))
}

/// Why a command did not start in the guest, if this is how it ended.
pub(crate) fn not_run(ending: &Ending) -> Option<Error> {
    if !matches!(ending.reason, Reason::NotFound | Reason::NotExecutable) {
        return None;
    }
    let message = ending.failure.as_ref().map(|failure| printable(&failure.message));
    Some(Error::msg(message.unwrap_or_else(|| "the guest cannot run the command".to_owned())))
}

/// What there is of a job that has ended.
fn ended(name: &str, past: &PastJob) -> String {
    match past.job.status {
        Some(status) => format!("its status is {status}; `metaservice inspect {name}` shows more"),
        None => format!("it is lost; `metaservice inspect {name}` shows more"),
    }
}

/// A machine that does not start.
pub(crate) fn machine(error: MachineError) -> Error {
    use metaservice_qemu::StartError;
    match error {
        MachineError::Describe(error) => describe(error),
        MachineError::Start(error) => {
            let hint = match &error {
                StartError::NoMemory(_) => "give the machine less by --memory SIZE",
                _ => return error.into(),
            };
            Error::new(Hint(hint.to_owned())).context(error)
        }
        error @ MachineError::Publish(_) => {
            let hint = "publish another one: --publish PORT:GUEST_PORT, or 0:GUEST_PORT for any";
            hinted(hint, format!("{:#}", Error::new(error)))
        }
        MachineError::NotAFile { output, path } => {
            let hint = "write it to a file, and follow it: metaservice net log -f JOB";
            let (flag, path) = (output_flag(&output), path.display());
            hinted(hint, format!("cannot write {flag} {path}: it is not a plain file"))
        }
        MachineError::Output { output, path, cause } => {
            let flag = output_flag(&output);
            Error::new(cause).context(format!("cannot write {flag} {}", path.display()))
        }
        error => error.into(),
    }
}

fn describe(error: DescribeError) -> Error {
    match error {
        DescribeError::Tools(missing) => tools(&missing),
        error => error.into(),
    }
}

/// A command that did not start, because the guest's agent cannot do what the job asks for.
pub(crate) fn unsupported(ending: &Ending) -> Option<Error> {
    let failure = ending.failure.as_ref().filter(|_| ending.reason == Reason::Unsupported)?;
    if failure.code != FailureCode::Invalid {
        // The agent itself says why.
        return Some(Error::msg(printable(&failure.message)));
    }
    let hint = "give the guest the agent of this version: install it, or prepare the image again";
    Some(hinted(hint, failure.message.clone()))
}

/// Programs that are missing.
pub(crate) fn tools(missing: &MissingTools) -> Error {
    hinted(missing.hint.clone(), missing.to_string())
}

/// A snapshot that cannot be used or made.
pub(crate) fn snapshot(error: SnapshotError) -> Error {
    match error {
        SnapshotError::Describe(error) => describe(error),
        error => match error.console() {
            Some(console) => Error::msg(with_console(&error.to_string(), console)),
            None => error.into(),
        },
    }
}

/// What went wrong, with the last lines of the guest's console.
pub(crate) fn with_console(what: &str, console: &[String]) -> String {
    if console.is_empty() {
        return format!("{what}; its console is empty");
    }
    let lines = printable(&console.join("\n  "));
    format!("{what}; last console lines:\n  {lines}")
}

/// Why a job has no result. `elsewhere`: another program starts its machine.
///
/// # Errors
/// If the job is lost, with the reason.
pub(crate) fn lost(
    report: &Report,
    boot_timeout: Option<Duration>,
    limits: &Limits,
    elsewhere: bool,
) -> Result<()> {
    let lost = match report.fetched {
        true => "; what the command wrote and the guest had not sent is lost",
        false => "",
    };
    match report.outcome.end {
        End::MachineGone => {
            let how = report.exit.as_ref().map(|exit| exit.cause.to_string()).unwrap_or_default();
            let what = format!("the machine ended before the job did: {how}{lost}");
            Err(Error::msg(with_console(&what, &report.console)))
        }
        End::NeverFetched => {
            let after = humantime::format_duration(boot_timeout.unwrap_or_default());
            if elsewhere {
                return Err(Error::msg(format!("no guest has fetched its command within {after}")));
            }
            let what = format!("the guest never fetched its command within {after}");
            Err(Error::msg(with_console(&what, &report.console)))
        }
        End::AgentDead => {
            let after = humantime::format_duration(limits.agent_dead());
            let what = format!(
                "the guest's agent has sent nothing for {after} (--limit agent-dead){lost}"
            );
            if elsewhere {
                return Err(Error::msg(what));
            }
            Err(Error::msg(with_console(&what, &report.console)))
        }
        End::NoGuest => {
            let after = humantime::format_duration(limits.no_guest().unwrap_or_default());
            let what = format!("no guest has sent a request for {after} (--limit no-guest){lost}");
            Err(Error::msg(what))
        }
        _ => Ok(()),
    }
}
