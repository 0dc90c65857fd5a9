//! Why a job of a queue waits, in words.

use std::convert::Infallible;
use std::time::{Duration, UNIX_EPOCH};

use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::{Queue, ReadError, Waiting};
use metaservice_fleet::requirement::Requirement;
use metaservice_fleet::state::{JobState, Phase, ServerTime};
use metaservice_fleet::why_waiting::Reason;
use serde_json::json;
use tokio::time::Instant;

use super::causes::loss;
use crate::output::printer::Printer;

/// A job that starts within this time needs no reason.
const GRACE: Duration = Duration::from_secs(1);

/// The most reasons that are printed for one job.
const MOST: u32 = 12;

/// Prints why a job waits, whenever that changes.
pub(super) struct Told<'a> {
    queue: &'a Queue,
    id: &'a JobId,
    printer: Printer,
    began: Instant,
    waiting: Option<Waiting>,
    lines: u32,
}

impl<'a> Told<'a> {
    pub(super) fn new(queue: &'a Queue, id: &'a JobId, printer: Printer) -> Self {
        Self { queue, id, printer, began: Instant::now(), waiting: None, lines: 0 }
    }

    /// Prints the reasons while the job is in this state.
    ///
    /// Cancellation: the next call continues.
    pub(super) async fn tell(&mut self, job: Option<&JobState>) -> Infallible {
        let waits = |job: &&JobState| matches!(job.phase, Phase::Waiting { .. });
        let is_shown = self.printer.is_json() || !self.printer.is_quiet();
        if let Some(job) = job.filter(waits)
            && is_shown
        {
            tokio::time::sleep_until(self.began + GRACE).await;
            if let Err(error) = self.tell_changes(job).await {
                if matches!(error, ReadError::NoLeases) {
                    self.say(&Reason::NoWorker, job);
                }
                // The reader of the job itself says when the queue does not answer.
                tracing::debug!(%error, "no reason is known why the job waits");
                self.waiting = None;
            }
        }
        std::future::pending().await
    }

    async fn tell_changes(&mut self, job: &JobState) -> Result<(), ReadError> {
        while self.lines < MOST {
            let waiting = match &mut self.waiting {
                Some(waiting) => waiting,
                None => self.waiting.insert(self.queue.waiting().await?),
            };
            let reason = waiting.next(job).await?;
            self.say(&reason, job);
        }
        Ok(())
    }

    fn say(&mut self, reason: &Reason, job: &JobState) {
        self.lines += 1;
        let text = words(reason, job);
        self.printer.note(&format!("{} waits: {text}", self.id));
        let details = json!({ "id": self.id, "reason": reason.word(), "message": text });
        self.printer.event("waiting", details);
    }
}

/// Why a job waits.
pub(crate) fn words(reason: &Reason, job: &JobState) -> String {
    match reason {
        Reason::NotBefore(start) => format!("it may not start before {}", time(*start)),
        Reason::Pause { until, cause, message } => {
            let more = if message.is_empty() { String::new() } else { format!(": {message}") };
            let (attempt, of, until) = (job.used, job.request.attempts, time(*until));
            format!(
                "attempt {attempt} of {of} was lost ({}{more}); it pauses until {until}",
                loss(*cause)
            )
        }
        Reason::Late => {
            "its deadline has passed, so it does not start; a worker ends it".to_owned()
        }
        Reason::NoWorker => "the queue has no worker".to_owned(),
        Reason::Draining => "all workers are draining".to_owned(),
        Reason::Needs(needs) => {
            let needs: Vec<_> = needs.iter().map(need).collect();
            format!("no worker has {}", needs.join(" and "))
        }
        Reason::TooLarge { memory, largest } => {
            let (memory, largest) = (size(*memory), size(*largest));
            format!("its machine needs {memory}, and no worker for it has more than {largest}")
        }
        Reason::Tenant { limit } => {
            let tenant = &job.request.tenant;
            format!("the tenant {tenant} may have {limit} running jobs")
        }
        Reason::Busy => "all slots of the workers that can run it are taken".to_owned(),
        Reason::Memory => "the workers that can run it have too little memory left".to_owned(),
        Reason::Disk => "the disks of the workers that can run it are nearly full".to_owned(),
        reason => reason.word().to_owned(),
    }
}

fn need(need: &Requirement) -> String {
    match need {
        Requirement::Memory(bytes) => format!("mem={}", metaservice_sandbox::spec::Size(*bytes)),
        need => need.to_string(),
    }
}

/// Memory in MiB or GiB, rounded up.
fn size(bytes: u64) -> String {
    match bytes >> 20 {
        0..=10_239 => format!("{} MiB", bytes.div_ceil(1 << 20)),
        _ => format!("{} GiB", bytes.div_ceil(1 << 30)),
    }
}

fn time(milliseconds: ServerTime) -> String {
    // The library panics at years of five digits.
    let latest = Duration::from_secs(253_402_300_799);
    let since = Duration::from_millis(milliseconds).min(latest);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use metaservice_fleet::request::Request;
    use metaservice_fleet::state::Stored;
    use metaservice_fleet::step::{Change, LostCause};
    use metaservice_sandbox::spec::JobSpec;

    use super::*;

    #[test]
    fn reasons_are_sentences() {
        let at = Stored { number: 0, sequence: 1, time: 0 };
        let request = Request::new(JobSpec::new(["true"]));
        let mut job = JobState::submitted(at, Change::Submitted(Box::new(request))).unwrap();
        job.used = 1;
        let says = |reason| words(&reason, &job);
        assert_eq!(says(Reason::NotBefore(1000)), "it may not start before 1970-01-01T00:00:01Z");
        assert!(says(Reason::NotBefore(u64::MAX)).ends_with("9999-12-31T23:59:59Z"));
        let pause = Reason::Pause { until: 0, cause: LostCause::Machine, message: "x".to_owned() };
        let lost = "attempt 1 of 2 was lost (its machine failed: x); it pauses until 1970-";
        assert!(says(pause).starts_with(lost));
        let needs = ["kvm", "mem=64G"].map(|need| need.parse().unwrap()).to_vec();
        assert_eq!(says(Reason::Needs(needs)), "no worker has kvm and mem=64G");
        let large = Reason::TooLarge { memory: 64 << 30, largest: (5 << 29) + 1 };
        let sentence = "its machine needs 64 GiB, and no worker for it has more than 2561 MiB";
        assert_eq!(says(large), sentence);
    }
}
