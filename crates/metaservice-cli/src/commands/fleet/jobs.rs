//! `metaservice jobs`: the jobs of a queue.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use metaservice_fleet::name::{JobId, Tenant};
use metaservice_fleet::queue::{Queue, ReadError, StoredStep};
use metaservice_fleet::state::{JobState, Phase, ServerTime};
use metaservice_fleet::step::Outcome;
use metaservice_fleet::tenants::TenantUse;
use metaservice_fleet::view::View;
use metaservice_fleet::why_waiting::{Crew, Reason, why};
use serde_json::{Value, json};

use super::QueueArgs;
use super::waiting::words;
use crate::interrupts::Interrupts;
use crate::output;
use crate::output::printer::{Printer, json_text, printable};
use crate::output::table::Columns;
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice jobs
  metaservice jobs --all --tenant course-101
  metaservice jobs --follow --json
  metaservice jobs --all --json | jq '.[] | select(.state == \"exception\")'";

/// List the jobs of a queue: those that wait and run, in their order.
///
/// REASON is why a job waits: "no-worker", "draining", "busy" (all slots are taken), "needs" (no
/// worker has all of --require), "too-large" (more memory than each worker may use), "memory",
/// "disk", "tenant" (its limit of running jobs), "not-before", "pause" (after a lost attempt) or
/// "late" (after its deadline). With --json, "why" has the details, and "place" the place of a
/// waiting job among those of its tenant.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Jobs {
    /// Also list the jobs that have ended.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Then list each job again whenever its state changes, until Ctrl-C.
    ///
    /// With --json: one object in each line.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// List only the jobs of this tenant.
    #[arg(long, value_name = "TENANT")]
    pub(crate) tenant: Option<Tenant>,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

impl Jobs {
    /// Whether the job is of a tenant that is asked for.
    fn is_of_tenant(&self, job: &JobState) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| *tenant == job.request.tenant)
    }

    /// The jobs that are asked for, in their order.
    fn list<'a>(&self, view: &'a View) -> Vec<(&'a JobId, &'a JobState)> {
        let wanted =
            |job: &JobState| (self.all || job.outcome().is_none()) && self.is_of_tenant(job);
        let mut jobs: Vec<_> = view.jobs().filter(|(_, job)| wanted(job)).collect();
        jobs.sort_by_key(|(id, job)| (job.submitted, *id));
        jobs
    }
}

pub(crate) async fn jobs(args: Jobs, printer: Printer) -> Result<ExitStatus> {
    if args.follow {
        let mut interrupts = Interrupts::listen()?;
        return tokio::select! {
            Err(error) = follow(&args, printer) => Err(error),
            interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
        };
    }
    let queue = args.queue.connect().await?;
    let view = queue.view().await?;
    let waits = Waits::of(&queue, &view).await?;
    let jobs = args.list(&view);
    let unknown = view.unknown().count();
    if unknown > 0 {
        let text = "jobs are not shown: a later version of metaservice submitted them";
        printer.note(&format!("{unknown} {text}"));
    }
    if printer.is_json() {
        let all: Vec<_> = jobs.iter().map(|(id, job)| waits.json_of(id, job)).collect();
        output::line(json_text(&json!(all).to_string()))?;
    } else {
        Lines::begin(&jobs, Some(&waits), printer)?;
    }
    Ok(ExitStatus::SUCCESS)
}

/// Why jobs wait.
struct Waits {
    crew: Crew,
    time: ServerTime,
    tenants: BTreeMap<Tenant, TenantUse>,
    places: HashMap<JobId, usize>,
}

impl Waits {
    async fn of(queue: &Queue, view: &View) -> Result<Self> {
        let (crew, time) = queue.crew().await?;
        let places = view.places().map(|(id, place)| (id.clone(), place)).collect();
        Ok(Self { crew, time, tenants: view.tenants(), places })
    }

    fn reason(&self, job: &JobState) -> Option<Reason> {
        let tenant = self.tenants.get(&job.request.tenant).copied().unwrap_or_default();
        why(job, &self.crew, tenant, self.time)
    }

    fn json_of(&self, id: &JobId, job: &JobState) -> Value {
        let (mut json, reason) = (json_of(id, job), self.reason(job));
        json["reason"] = reason.as_ref().map(Reason::word).into();
        json["why"] = reason.map(|reason| words(&reason, job)).into();
        json["place"] = self.places.get(id).copied().into();
        json
    }
}

/// Writes the list, and each job again whenever its state changes.
async fn follow(args: &Jobs, printer: Printer) -> Result<Infallible> {
    let queue = args.queue.connect().await?;
    let (mut view, began) = (View::of_client(), Instant::now());
    let mut steps = queue.steps().await?;
    while !steps.is_caught_up() {
        let step = steps.next().await?;
        view.apply(began.elapsed(), &step.id, step.at, step.change);
    }
    let lines = Lines::begin(&args.list(&view), None, printer)?;
    loop {
        let StoredStep { id, at, change } = steps.next().await?;
        let shown = |job: &JobState| (state(job), job.attempt);
        let before = view.job(&id).map(shown);
        view.apply(began.elapsed(), &id, at, change);
        if let Some(job) = view.job(&id)
            && args.is_of_tenant(job)
            && before != Some(shown(job))
        {
            lines.write(&id, job)?;
        }
    }
}

/// The jobs of a queue, for those who ask for all about one.
pub(crate) struct Inspected {
    view: View,
    waits: Waits,
}

impl Inspected {
    pub(crate) async fn read(args: &QueueArgs) -> Result<Self> {
        let queue = args.connect().await?;
        let view = queue.view().await?;
        let waits = Waits::of(&queue, &view).await?;
        Ok(Self { view, waits })
    }

    /// All about a job, as JSON.
    pub(crate) fn one(&self, id: &str) -> Result<String> {
        let id: JobId = id.parse()?;
        if self.view.is_unknown(&id) {
            return Err(ReadError::Later(id).into());
        }
        let job = self.view.job(&id).ok_or_else(|| ReadError::NoJob(id.clone()))?;
        let mut json = self.waits.json_of(&id, job);
        json["request"] = json!(*job.request);
        json["outcome"] = json!(job.outcome());
        json["claimedMs"] = job.claimed.into();
        json["endedMs"] = match job.phase {
            Phase::Ended { at, .. } => at.into(),
            _ => Value::Null,
        };
        Ok(serde_json::to_string_pretty(&json)?)
    }
}

/// The place of the reason in a row: behind the state.
const REASON: usize = 3;

/// Jobs as lines: rows of a table, ids or JSON.
struct Lines {
    columns: Columns,
    printer: Printer,
}

impl Lines {
    /// Writes these jobs first.
    ///
    /// A reason holds at one moment: a list that is followed has none.
    fn begin(
        jobs: &[(&JobId, &JobState)],
        waits: Option<&Waits>,
        printer: Printer,
    ) -> Result<Self> {
        let head = ["ID", "TENANT", "STATE", "ATTEMPT", "WORKER", "AGE", "COMMAND"];
        let mut head = head.map(str::to_owned).to_vec();
        if waits.is_some() {
            head.insert(REASON, "REASON".to_owned());
        }
        let rows = jobs.iter().map(|(id, job)| {
            let mut row = row(id, job, now());
            if let Some(waits) = waits {
                let reason = waits.reason(job).as_ref().map_or("-", Reason::word);
                row.insert(REASON, reason.to_owned());
            }
            row
        });
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        // Later rows are as wide as most are.
        let columns = Columns::of(&rows);
        let columns = if waits.is_none() { columns.at_least(&[12, 8, 11, 7, 10]) } else { columns };
        let lines = Self { columns, printer };
        if printer.is_json() || printer.is_quiet() {
            jobs.iter().try_for_each(|(id, job)| lines.write(id, job))?;
        } else {
            rows.iter().try_for_each(|row| output::line(lines.columns.line(row)))?;
        }
        Ok(lines)
    }

    fn write(&self, id: &JobId, job: &JobState) -> Result<()> {
        if self.printer.is_json() {
            output::line(json_text(&json_of(id, job).to_string()))?;
        } else if self.printer.is_quiet() {
            output::line(id)?;
        } else {
            output::line(self.columns.line(&row(id, job, now())))?;
        }
        Ok(())
    }
}

/// The time in seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The state in a word, and the exit status.
pub(crate) fn state(job: &JobState) -> (&'static str, Option<u8>) {
    match &job.phase {
        _ if job.is_of_later_version() => ("unknown", None),
        Phase::Waiting { .. } => ("waiting", None),
        Phase::Running { .. } if job.is_cancelled => ("killing", None),
        Phase::Running { .. } => ("running", None),
        Phase::Ended { outcome: Outcome::Finished { status: 0, .. }, .. } => ("succeeded", Some(0)),
        Phase::Ended { outcome: Outcome::Finished { status, .. }, .. } => ("failed", Some(*status)),
        Phase::Ended { outcome: Outcome::Cancelled, .. } => ("cancelled", None),
        Phase::Ended { outcome: Outcome::Unknown, .. } => ("ended", None),
        _ => ("exception", None),
    }
}

/// The worker that runs or ran it.
pub(crate) fn worker(job: &JobState) -> Option<String> {
    match &job.phase {
        Phase::Running { worker, .. } => Some(worker.to_string()),
        Phase::Ended { worker, .. } => worker.as_ref().map(ToString::to_string),
        _ => None,
    }
}

fn row(id: &JobId, job: &JobState, now: u64) -> Vec<String> {
    let (state, status) = state(job);
    let state = match status {
        Some(status) if status != 0 => format!("{state} ({status})"),
        _ => state.to_owned(),
    };
    let command = printable(&job.request.spec.command.join(" ")).replace(['\n', '\t'], " ");
    let age = std::time::Duration::from_secs(now.saturating_sub(job.submitted / 1000));
    vec![
        id.to_string(),
        job.request.tenant.to_string(),
        state,
        job.attempt.to_string(),
        worker(job).unwrap_or_else(|| "-".to_owned()),
        crate::output::age(age),
        short(&command),
    ]
}

/// At most 60 characters of a command.
fn short(command: &str) -> String {
    match command.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &command[..end]),
        None => command.to_owned(),
    }
}

fn json_of(id: &JobId, job: &JobState) -> Value {
    let (state, status) = state(job);
    let message = match job.outcome() {
        Some(Outcome::Exception { message, .. }) => Some(message.clone()),
        _ => job.last_loss.as_ref().map(|(_, message)| message.clone()),
    };
    json!({
        "id": id,
        "tenant": job.request.tenant,
        "priority": job.request.priority,
        "state": state,
        "status": status,
        "attempt": job.attempt,
        "attempts": job.request.attempts,
        "worker": worker(job),
        "submittedMs": job.submitted,
        "message": message,
        "command": job.request.spec.command,
    })
}

#[cfg(test)]
mod tests {
    use metaservice_fleet::request::Request;
    use metaservice_fleet::state::Stored;
    use metaservice_fleet::step::Change;
    use metaservice_sandbox::spec::JobSpec;

    use super::*;

    #[test]
    fn a_row_has_no_escape_and_no_line_of_its_own() {
        let request = Request::new(JobSpec::new(["echo", "a\u{1b}[2J\nb"]));
        let at = |number| Stored { number, sequence: 1, time: 1000 };
        let change = Change::Submitted(Box::new(request));
        let mut job = JobState::submitted(at(0), change).unwrap();
        let id = "a".parse().unwrap();
        let cells = row(&id, &job, 61).join("|");
        assert_eq!(cells, "a|default|waiting|0|-|60s|echo a\u{fffd}[2J b");
        assert_eq!(short(&"x".repeat(60)).len(), 60);
        assert_eq!(short(&"x".repeat(61)), format!("{}...", "x".repeat(60)));
        job.apply(at(1), Some(Change::Cancelled));
        assert_eq!(json_of(&id, &job)["state"], "cancelled");
    }

    #[test]
    fn a_job_of_a_later_version_is_unknown_until_it_has_ended() {
        let at = |number| Stored { number, sequence: 1, time: 1000 };
        let request = Request::new(JobSpec::new(["true"]));
        let mut job = JobState::submitted(at(0), Change::Submitted(Box::new(request))).unwrap();
        job.apply(at(1), None);
        assert_eq!(state(&job).0, "unknown");
        job.apply(at(2), Some(Change::Ended(Outcome::Unknown)));
        assert_eq!(state(&job).0, "ended");
    }
}
