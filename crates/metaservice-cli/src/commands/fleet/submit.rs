//! `metaservice submit`: hand a job to a queue.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Error, Result, ensure};
use clap::{Args, ValueEnum};
use metaservice_fleet::name::{JobId, Tenant};
use metaservice_fleet::queue::{Queue, RoomError, SubmitError};
use metaservice_fleet::request::{ATTEMPTS, InvalidRequest, MAX_ATTEMPTS, Request};
use metaservice_fleet::step::Outcome;
use metaservice_sandbox::spec::JobSpec;
use serde::Deserialize;
use serde_json::json;

use super::connection::QueueArgs;
use super::seal::SealArgs;
use super::store::{StoreArgs, Stores};
use super::{artifacts, follow};
use crate::description::{self, Description};
use crate::flags::{JobArgs, VmArgs};
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output;
use crate::output::printer::{Printer, json_text};
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice submit -- make test
  metaservice submit --wait --image debian --artifact /out:results -- make test
  metaservice submit --secret TOKEN --seal-for XKEY -- ./deploy
  metaservice submit --require mem=64G,cpus=16,kvm -- make test
  metaservice submit --file jobs.jsonl --tenant course-101 --priority low

A line of --file is a description, as \"run --dry-run=json\" prints it, or an object with an \"id\"
and a \"spec\":

  {\"version\": 1, \"command\": [\"make\", \"test\"], \"machine\": {\"memory\": \"2G\"}}
  {\"id\": \"job-7\", \"spec\": {\"version\": 1, \"command\": [\"sh\", \"-c\", \"exit 3\"]}}

  metaservice run --dry-run=json --image debian -- make test | jq -c . >> jobs.jsonl

Exit status: 0. With --wait, that of the command; 130 if the job was cancelled; 125 if it has no
result.";

/// Hand a job to a queue, and print its id.
///
/// A worker of the queue runs it. It uses no path of a host: --copy-in, --volume, --rootfs, --log
/// and other paths of yours do not go with it, and neither does standard input. --secret seals its
/// value for the workers: it needs --seal-for.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
#[command(mut_arg("command", |arg| arg.required_unless_present_any(["file", "entrypoint"])))]
pub(crate) struct Submit {
    /// The id of the job. Submitting it again with the same id changes nothing.
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    pub(crate) id: Option<JobId>,
    /// Whose job it is. Tenants get equal shares of the workers.
    #[arg(long, value_name = "TENANT", default_value_t = Tenant::default())]
    pub(crate) tenant: Tenant,
    /// The class of the job: within a tenant, higher ones run first.
    #[arg(long, value_name = "CLASS", value_enum, default_value_t = Priority::Normal)]
    pub(crate) priority: Priority,
    /// How often to try the job if a worker or its machine fails. A command that fails has failed.
    #[arg(long, value_name = "N", default_value_t = ATTEMPTS)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ATTEMPTS)))]
    pub(crate) attempts: u32,
    /// Do not start the job before this time has passed.
    #[arg(long, value_name = "DURATION")]
    pub(crate) not_before: Option<String>,
    /// Do not start the job after this time has passed.
    #[arg(long, value_name = "DURATION")]
    pub(crate) deadline: Option<String>,
    /// Run the job only on a worker that has this, with commas between several. Repeatable.
    ///
    /// "mem=8G": its host has so much memory. "cpus=4": its host has so many processors. All else is
    /// a label of the worker: "arch=aarch64", "os=linux", "kvm", or one of worker --label.
    #[arg(long, value_name = "NEED", value_delimiter = ',')]
    pub(crate) require: Vec<String>,
    /// Show the log, fetch the artifacts, and exit with the status of the command, as "run" does.
    ///
    /// Ctrl-C cancels the job.
    #[arg(long, conflicts_with = "file")]
    pub(crate) wait: bool,
    /// Submit the jobs of a file: one a line, as JSON. "-" is standard input.
    ///
    /// If a line is wrong, no job is submitted.
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) seal: SealArgs,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) vm: VmArgs,
}

/// A class of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Priority {
    /// After all others.
    Low,
    /// The usual class.
    Normal,
    /// Before all others.
    High,
}

/// The treatment that the flags ask for.
struct Treatment {
    tenant: Tenant,
    priority: Priority,
    attempts: u32,
    not_before: Option<u64>,
    deadline: Option<u64>,
    require: Vec<String>,
}

impl Treatment {
    fn request(&self, spec: JobSpec) -> Request {
        use metaservice_fleet::request::Priority as Class;
        let mut request = Request::new(spec);
        request.tenant = self.tenant.clone();
        request.priority = match self.priority {
            Priority::Low => Class::Low,
            Priority::Normal => Class::Normal,
            Priority::High => Class::High,
        };
        request.attempts = self.attempts;
        (request.not_before, request.deadline) = (self.not_before, self.deadline);
        request.require = self.require.iter().cloned().collect();
        request
    }
}

pub(crate) async fn submit(args: Submit, printer: Printer) -> Result<ExitStatus> {
    let treatment = Treatment {
        tenant: args.tenant,
        priority: args.priority,
        attempts: args.attempts,
        not_before: moment(args.not_before.as_deref(), "--not-before")?,
        deadline: moment(args.deadline.as_deref(), "--deadline")?,
        require: args.require,
    };
    if let Some(file) = &args.file {
        ensure!(args.job.secret.is_empty(), "--secret cannot be used with --file");
        let jobs = read(file, &treatment)?;
        let queue = args.queue.connect().await?;
        let ids: Vec<_> = jobs.iter().map(|(id, _)| id).collect();
        check_room(&queue, &treatment.tenant, &ids).await?;
        for (id, request) in jobs {
            hand_over(&queue, &id, &request, printer).await?;
        }
        return Ok(ExitStatus::SUCCESS);
    }
    let mut description = Description::of_job(args.job)?;
    description.spec.machine = description::machine(args.vm)?;
    let (spec, withdrawn) = description.into_parts();
    let id = args.id.unwrap_or_else(JobId::random);
    let mut request = treatment.request(spec);
    let secrets = SealArgs::take(&mut request, withdrawn)?;
    args.seal.seal(&id, &mut request, &secrets)?;
    request.check().map_err(invalid)?;
    let mut interrupts = Interrupts::listen()?;
    let queue = args.queue.connect().await?;
    check_room(&queue, &request.tenant, &[&id]).await?;
    if !args.wait {
        hand_over(&queue, &id, &request, printer).await?;
        return Ok(ExitStatus::SUCCESS);
    }
    let stores = Stores::open(&queue, &args.store)?;
    queue.submit(&id, &request).await.map_err(submission)?;
    printer.event("submitted", json!({ "id": id }));
    printer.note(&format!("{id} waits for a worker"));
    wait(&queue, &stores, &id, &request, &mut interrupts, printer).await
}

/// Checks whether the tenant may submit these jobs.
pub(super) async fn check_room(queue: &Queue, tenant: &Tenant, ids: &[&JobId]) -> Result<()> {
    queue.check_room(tenant, ids).await.map_err(|error| match error {
        error @ RoomError::Full { .. } => hints::hinted(
            format!("submit fewer at once, or wait: \"metaservice tenants {tenant}\" shows them"),
            error.to_string(),
        ),
        error => Error::new(error).context("cannot submit the job"),
    })
}

/// Submits a job, and prints its id.
pub(super) async fn hand_over(
    queue: &Queue,
    id: &JobId,
    request: &Request,
    printer: Printer,
) -> Result<()> {
    queue.submit(id, request).await.map_err(submission)?;
    match printer.is_json() {
        true => output::line(json_text(&json!({ "id": id }).to_string()))?,
        false => output::line(id)?,
    }
    Ok(())
}

/// Shows the log until the job has ended. An interrupt cancels it; a second one leaves it.
async fn wait(
    queue: &Queue,
    stores: &Stores,
    id: &JobId,
    request: &Request,
    interrupts: &mut Interrupts,
    printer: Printer,
) -> Result<ExitStatus> {
    let mut printing = std::pin::pin!(follow::print_all(queue, id, printer));
    let mut is_cancelled = false;
    let job = loop {
        tokio::select! {
            job = &mut printing => break job?,
            interrupt = interrupts.next() => {
                if is_cancelled {
                    return Ok(ExitStatus::signal(interrupt.number));
                }
                is_cancelled = true;
                queue.cancel(id).await.context("cannot cancel the job")?;
            }
        }
    };
    let Some(outcome) = job.outcome() else { return Ok(ExitStatus::FAILED) };
    let fetched = match outcome {
        Outcome::Finished { artifacts, .. } => {
            artifacts::place(stores, &request.spec, artifacts, printer).await
        }
        _ => true,
    };
    match follow::conclude(id, &job, outcome, printer) {
        ExitStatus::SUCCESS if !fetched => Ok(ExitStatus::FAILED),
        status => Ok(status),
    }
}

/// The largest file of jobs, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// A line with more than a description.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<JobId>,
    spec: JobSpec,
}

fn read(path: &Path, treatment: &Treatment) -> Result<Vec<(JobId, Request)>> {
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().take(MAX_FILE + 1).read_to_string(&mut text),
        false => std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text)),
    };
    read.with_context(|| format!("cannot read --file {}", path.display()))?;
    ensure!(text.len() as u64 <= MAX_FILE, "--file is larger than {} MiB", MAX_FILE >> 20);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let jobs = lines.map(|(number, line)| {
        job_of(line, treatment).with_context(|| format!("in line {} of --file", number + 1))
    });
    jobs.collect()
}

fn job_of(line: &str, treatment: &Treatment) -> Result<(JobId, Request)> {
    let value: serde_json::Value = serde_json::from_str(line).map_err(|error| malformed(&error))?;
    let has_spec = value.get("spec").is_some() || value.get("id").is_some();
    let Line { id, spec } = match has_spec {
        true => serde_json::from_str(line).map_err(|error| malformed(&error))?,
        false => {
            Line { id: None, spec: serde_json::from_str(line).map_err(|error| malformed(&error))? }
        }
    };
    let request = treatment.request(spec);
    request.check().map_err(invalid)?;
    Ok((id.unwrap_or_else(JobId::random), request))
}

/// A line that is no job. Its own number is not that of the file.
fn malformed(error: &serde_json::Error) -> Error {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let text = text.trim_end_matches(&format!(" at line {line} column {column}"));
    let hint = r#"a line is a job such as {"version": 1, "command": ["make", "test"]}"#;
    hints::hinted(hint, format!("column {column}: {text}"))
}

/// A time from now, in milliseconds since 1970.
fn moment(text: Option<&str>, flag: &'static str) -> Result<Option<u64>> {
    let Some(period) = description::period(text, flag)? else { return Ok(None) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let moment: Duration = now.saturating_add(period.get());
    Ok(Some(u64::try_from(moment.as_millis()).unwrap_or(u64::MAX)))
}

fn submission(error: SubmitError) -> Error {
    match error {
        SubmitError::Invalid(error) => invalid(error),
        error @ SubmitError::Other(_) => hints::hinted("give another --id", error.to_string()),
        error => Error::new(error).context("cannot submit the job"),
    }
}

fn invalid(error: InvalidRequest) -> Error {
    match error {
        InvalidRequest::HostPath(_) => hints::hinted(
            "put the files into an image, or fetch them in the command",
            error.to_string(),
        ),
        error => error.into(),
    }
}
