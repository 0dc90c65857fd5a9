//! What happens to a job, in words: notes for people, and events for programs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Error, Result};
use metaservice::JobResult;
use metaservice_egress::audit::Decision;
use metaservice_qemu::CacheNotice;
use metaservice_sandbox::copy::{Content, Step};
use metaservice_sandbox::job::{CopyIn, Job, Limits, OutputField};
use metaservice_sandbox::life::{Collected, End, Force, KillReason, Signal, Start};
use metaservice_sandbox::{CopyProgress, Denial, Event, Report, Sandbox, output as sandbox_output};
use serde_json::json;
use tokio::sync::watch;

use super::printer::{Printer, Spinner, printable};
use super::progress::Progress;
use super::{contact, network, remarks};
use crate::hints;
use crate::interrupts::{Interrupts, signal_name};
use crate::status::ExitStatus;
use crate::terminal::owner::OwnerInput;

/// Facts about the job that the messages mention.
pub(crate) struct JobFacts {
    name: String,
    pub(crate) boot_timeout: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) limits: Limits,
    /// The state directory of a job that outlives its service.
    pub(crate) state: Option<PathBuf>,
    /// The number of artifacts.
    pub(crate) artifacts: usize,
    /// Whether another program starts the machine.
    pub(crate) elsewhere: bool,
}

impl JobFacts {
    pub(crate) fn of(job: &Job, boot_timeout: Option<Duration>, state: Option<PathBuf>) -> Self {
        let (timeout, limits) = (job.timeout(), job.limits().clone());
        Self {
            name: job.name().to_owned(),
            boot_timeout,
            timeout,
            limits,
            state,
            artifacts: job.artifacts().len(),
            elsewhere: false,
        }
    }

    /// Another program starts the machine.
    pub(crate) fn elsewhere(self) -> Self {
        Self { elsewhere: true, ..self }
    }
}

/// Follows a job to its end, and says what happens. Signals to this process end the job. Its
/// command gets `input`.
pub(crate) async fn follow(
    mut sandbox: Sandbox,
    interrupts: &mut Interrupts,
    facts: &JobFacts,
    mut input: OwnerInput,
    printer: Printer,
) -> Report {
    let mut events = sandbox.events();
    let (spinner, copying, denials, is_kept, unkept) = (None, None, 0, false, false);
    let mut words = Words { printer, facts, spinner, copying, denials, is_kept, unkept };
    let report = loop {
        tokio::select! {
            biased;
            Some(event) = events.next() => {
                if matches!(event, Event::Ended(_) | Event::Killing { .. }) {
                    input.end();
                }
                let started = matches!(event, Event::Started { .. });
                words.event(event);
                if started {
                    input.begin(&sandbox, printer);
                }
            }
            happened = input.next() => input.handle(happened, &facts.name, printer),
            interrupt = interrupts.next() => sandbox.signal(Signal(interrupt.number)),
            report = sandbox.wait() => break report,
            () = words.copying() => {}
        }
    };
    input.end();
    while let Some(event) = events.next().await {
        words.event(event);
    }
    report
}

/// How many denials are printed in words.
const DENIALS: usize = 20;

struct Words<'a> {
    printer: Printer,
    facts: &'a JobFacts,
    spinner: Option<Spinner>,
    /// The copy that is under way, and its bar.
    copying: Option<(watch::Receiver<CopyProgress>, Progress)>,
    denials: usize,
    /// Whether the command has failed, and its machine is kept.
    is_kept: bool,
    /// Whether it was said that the job has no history.
    unkept: bool,
}

impl Words<'_> {
    fn wait_for(&mut self, text: impl AsRef<str>) {
        self.spinner = None;
        self.spinner = Some(self.printer.spinner(text));
    }

    /// Shows one step of the copy that is under way. Cancel safe.
    async fn copying(&mut self) {
        let Some((steps, bar)) = &mut self.copying else { return std::future::pending().await };
        if steps.changed().await.is_err() {
            self.copying = None;
            return;
        }
        let step = *steps.borrow_and_update();
        bar.observe(Step::Total(step.total));
        bar.observe(Step::Bytes(step.bytes));
    }

    fn copied_in(&mut self, copy: &CopyIn, content: &Content) {
        self.copying = None;
        let (from, to) = (copy.source().display().to_string(), copy.destination());
        self.printer.note(&format!("{from} -> {to} ({} bytes)", content.bytes));
        if content.left_out.count > 0 {
            let count = content.left_out.count;
            self.printer.note(&format!("left out of {from}, as no copy carries it: {count}"));
        }
        let details = json!({
            "source": from,
            "destination": to,
            "bytes": content.bytes,
            "files": content.files,
            "links": content.links,
            "leftOut": content.left_out.count,
        });
        self.printer.event("copiedIn", details);
    }

    fn event(&mut self, event: Event) {
        let printer = self.printer;
        match event {
            Event::CopyingIn { copy, progress } => {
                self.spinner = None;
                let bar = printer.progress(&copy.source().display().to_string(), None);
                self.copying = Some((progress, bar));
            }
            Event::CopiedIn { copy, content } => self.copied_in(&copy, &content),
            Event::NotCopiedIn(error) => {
                (self.spinner, self.copying) = (None, None);
                printer.error(&Error::new(error).context("the command is not started"));
            }
            Event::NoControl(error) => {
                printer
                    .error(&Error::new(error).context("the job cannot be controlled by clients"));
            }
            // It is said once: the description, the log and the result are each written.
            Event::NoHistory(_) if std::mem::replace(&mut self.unkept, true) => {}
            Event::NoHistory(error) => {
                let what = "the job is not kept in \"ps -a\" and \"logs\"";
                printer.note(&format!("{what}: {:#}", Error::new(error)));
            }
            Event::Starting => self.wait_for("starting the machine"),
            Event::Waiting => self.wait_for("waiting for the guest"),
            Event::Cache(notice) => printer.note(&cache(&notice)),
            Event::NoSnapshot(error) => {
                printer.note(&format!("booting instead: {:#}", hints::snapshot(error)));
            }
            Event::RestoreFailed(error) => {
                let what = "the snapshot cannot be used, and the machine is booted";
                printer.note(&format!("{what}: {:#}", Error::new(error)));
                self.wait_for("starting the machine");
            }
            Event::MachineStarted(Start::Boot) => {
                printer.event("booting", json!({}));
                self.wait_for("waiting for the guest");
            }
            Event::MachineStarted(Start::Restore) => printer.event("restored", json!({})),
            Event::Started { name } => {
                self.spinner = None;
                printer.event("started", json!({ "job": name }));
            }
            Event::Without(needs) => {
                for need in needs {
                    let text = format!("the agent in the guest cannot {need}: it is too old");
                    printer.note(&text);
                    printer.event("without", json!({ "message": text }));
                }
            }
            Event::Contact { before, now } => {
                let Some(text) = contact::words(before, now, &self.facts.limits) else { return };
                tracing::info!("{text}");
                printer.note(&text);
                printer.event("contact", json!({ "contact": now }));
            }
            Event::Denied(denial) => self.denied(&denial),
            Event::Published { publish, address } => network::published(&publish, address, printer),
            Event::LogHole => {
                let text = "the log may have a hole: a connection of an agent of version 1 was cut";
                tracing::info!("{text}");
                printer.note(text);
                printer.event("logHole", json!({}));
            }
            Event::Killing { reason, log } => self.killing(reason, log),
            Event::KillFailed(error) => {
                self.spinner = None;
                printer.error(&Error::new(error).context("the guest did not kill the command"));
            }
            Event::KillUnreported => {
                self.spinner = None;
                printer.note("the guest has not reported the command's end");
            }
            Event::KillNotTaken => {
                self.spinner = None;
                let text = "the guest does not answer, and its machine is ended; what the guest \
                            had not sent is lost";
                printer.note(text);
                printer.event("forced", json!({ "reason": "kill-not-taken" }));
            }
            Event::Forced(force) => {
                self.spinner = None;
                let lost = "is ended; what the guest had not sent is lost";
                let (what, reason) = match force {
                    Force::KillNotTaken => (
                        format!(": the guest did not take the order, and its machine {lost}"),
                        "kill-not-taken",
                    ),
                    _ if self.is_kept => (": the kept machine is ended".to_owned(), "asked"),
                    _ => (format!(" --force: the machine {lost}"), "asked"),
                };
                printer.note(&format!("metaservice kill{what}"));
                printer.event("forced", json!({ "reason": reason }));
            }
            Event::MachineGone { exit, console } => {
                self.spinner = None;
                let what = format!("the machine ended before the job did: {}", exit.cause);
                printer.error(&Error::msg(hints::with_console(&what, &console)));
            }
            Event::Fetching(artifact) => self.wait_for(format!("fetching {}", artifact.source())),
            Event::Fetched { artifact, length } => {
                self.spinner = None;
                let (source, destination) = (artifact.source(), artifact.destination().display());
                printer.note(&format!("{source} -> {destination} ({length} bytes)"));
                let details = json!({
                    "source": source,
                    "destination": destination.to_string(),
                    "bytes": length,
                });
                printer.event("artifact", details);
            }
            Event::NotFetched { artifact, error } => {
                self.spinner = None;
                let what = format!("cannot fetch {}", artifact.source());
                printer.error(&Error::new(error).context(what));
            }
            Event::LimitReached { output, path, limit } => {
                let (flag, name) = (hints::output_flag(&output), output_name(&output));
                let path = path.display();
                let more = format!("more by --limit {name}=SIZE");
                printer.note(&format!("{flag} {path} ends at {limit} bytes: {more}"));
                printer.event("bounded", json!({ "bound": name, "bytes": limit }));
            }
            Event::OutputFailed { output, path, cause } => {
                let (flag, path) = (hints::output_flag(&output), path.display());
                printer.note(&format!("{flag} {path} ends here, the job continues: {cause}"));
                let details = json!({ "output": output_name(&output), "error": cause.to_string() });
                printer.event("outputFailed", details);
            }
            Event::Kept { name, status, period } => self.kept(&name, status, period),
            Event::Ended(result) => self.ended(&result),
            Event::PoweringOff => {
                printer.event("poweringOff", json!({}));
                self.wait_for("powering off");
            }
            event => tracing::debug!(?event, "an event without words"),
        }
    }

    /// The first thing of its kind that the policy of the guest denies, or a name that does not
    /// resolve.
    fn denied(&mut self, denial: &Denial) {
        let Denial { record, rule, .. } = denial;
        let event = match record.verdict {
            Decision::Denied => "denied",
            Decision::Allowed => "unresolved",
        };
        self.printer.event(event, json!({ "attempt": record, "suggestion": rule }));
        self.denials += 1;
        match self.denials {
            ..=DENIALS => self.printer.note(&network::denied(denial)),
            count if count == DENIALS + 1 => {
                let name = &self.facts.name;
                self.printer.note(&format!("more is denied: metaservice net log {name}"));
            }
            _ => {}
        }
    }

    fn killing(&mut self, reason: KillReason, log: Option<metaservice::LogError>) {
        let printer = self.printer;
        match reason {
            KillReason::Timeout => {
                let timeout = humantime::format_duration(self.facts.timeout.unwrap_or_default());
                printer.note(&format!("the command is killed: --timeout of {timeout} has passed"));
                printer.event("timeout", json!({}));
            }
            KillReason::Signal(Signal(number)) => {
                let name = signal_name(number);
                printer.note(&format!("{name}: the command is killed (once more to stop at once)"));
                printer.event("interrupted", json!({ "signal": name }));
            }
            KillReason::CopyIn { late: false } => {}
            KillReason::CopyIn { late: true } => {
                self.copying = None;
                let limit = humantime::format_duration(self.facts.limits.artifact_timeout());
                let what = format!("the files of --copy-in were not in place within {limit}");
                let more = "more by --limit artifact-timeout=DURATION";
                printer
                    .error(&Error::msg(format!("{what}, and the command is not started: {more}")));
            }
            KillReason::LogFailed { unread: true } => {}
            KillReason::LogFailed { unread: false } => {
                if let Some(error) = log {
                    printer.error(&Error::new(error).context("the command is killed"));
                }
            }
        }
        self.wait_for("killing the command");
    }

    fn kept(&mut self, name: &str, status: u8, period: Duration) {
        self.spinner = None;
        self.is_kept = true;
        let time = humantime::format_duration(period);
        self.printer.note(&format!(
            "the command has failed with status {status}; its machine is kept for {time}: \
             metaservice shell {name}, metaservice exec {name} -- COMMAND, \
             metaservice cp {name}:PATH . (Ctrl-C or metaservice kill {name} ends it)"
        ));
        let ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        self.printer.event("kept", json!({ "job": name, "status": status, "ms": ms }));
    }

    fn ended(&mut self, result: &JobResult) {
        self.spinner = None;
        let status = result_status(result);
        let details =
            json!({ "success": result.success, "status": status, "ending": result.ending });
        self.printer.event("ended", details);
        if let Some(error) = result.ending.as_ref().and_then(hints::unsupported) {
            self.printer.error(&error);
        }
        for remark in result.ending.iter().flat_map(remarks::on) {
            self.printer.note(&remark);
        }
    }
}

/// The status of the command alone.
fn result_status(result: &JobResult) -> u8 {
    let timed_out =
        result.ending.as_ref().map(|ending| ending.reason) == Some(metaservice::Reason::TimedOut);
    if !result.success && timed_out { ExitStatus::TIMED_OUT.0 } else { result.status() }
}

fn output_name(output: &OutputField) -> String {
    hints::output_flag(output).trim_start_matches('-').to_owned()
}

fn cache(notice: &CacheNotice) -> String {
    match notice {
        CacheNotice::Damaged(path) => {
            format!("{} was damaged, and has been made again", path.display())
        }
        CacheNotice::Unwritable { path, why } => {
            let path = path.display();
            format!("the cache cannot be written, and a temporary file is used: {path}: {why}")
        }
    }
}

/// Says how the job ended, as far as its events have not, and what to exit with.
///
/// # Errors
/// When the job is lost, or its end cannot be persisted.
pub(crate) fn conclude(
    mut report: Report,
    facts: &JobFacts,
    printer: Printer,
) -> Result<ExitStatus> {
    let status = ExitStatus(report.status());
    match report.outcome.end {
        End::NotStarted => {
            if let Some(error) = report.not_started.take() {
                return Err(hints::machine(error));
            }
        }
        End::MachineGone | End::NeverFetched | End::AgentDead | End::NoGuest => {
            hints::lost(&report, facts.boot_timeout, &facts.limits, facts.elsewhere)?;
        }
        End::Cancelled(Signal(number)) => {
            let name = signal_name(number);
            printer.note(&format!("{name}: stopped before the guest fetched its command"));
        }
        End::Abandoned(Signal(number)) => {
            let name = signal_name(number);
            match &facts.state {
                Some(state) => {
                    let state = state.display();
                    printer.note(&format!("{name}: stopped at once; the state is in {state}"));
                }
                None => printer.note(&format!("{name}: stopped at once")),
            }
        }
        End::Left(Signal(number)) => {
            if let Some(state) = &facts.state {
                let (name, state) = (signal_name(number), state.display());
                printer
                    .note(&format!("{name}: the job can be continued from the state in {state}"));
            }
            incomplete(&report, facts, printer);
        }
        End::Result | End::Forced(_) | End::Killed(KillReason::Timeout | KillReason::Signal(_)) => {
            incomplete(&report, facts, printer);
        }
        _ => {}
    }
    if let Some(error) = report.progress.take() {
        return Err(error.into());
    }
    Ok(status)
}

/// Says what is missing of the artifacts and the log.
fn incomplete(report: &Report, facts: &JobFacts, printer: Printer) {
    let missing = "the artifacts were not fetched";
    let text = match report.outcome.collected {
        Collected::All => None,
        Collected::Failed if facts.artifacts == 1 => {
            Some("the artifact was not fetched".to_owned())
        }
        Collected::Failed => {
            Some(format!("{} of {} artifacts were not fetched", report.missing, facts.artifacts))
        }
        Collected::Late => {
            let limit = humantime::format_duration(facts.limits.artifact_timeout());
            let more = "more by --limit artifact-timeout=DURATION";
            Some(format!("{missing} within {limit}: {more}"))
        }
        Collected::MachineGone => Some(match &report.exit {
            Some(exit) => format!("{missing}: the machine ended: {}", exit.cause),
            None => format!("{missing}: the machine has ended"),
        }),
        Collected::Unresponsive => Some(format!("{missing}: the guest does not answer")),
    };
    if let Some(text) = text {
        printer.error(&Error::msg(printable(&text)));
    }
    if let Some(error) = &report.log
        && !sandbox_output::is_unread(error)
    {
        printer.error(&Error::new(error.clone()).context("the log is not complete"));
    }
}
