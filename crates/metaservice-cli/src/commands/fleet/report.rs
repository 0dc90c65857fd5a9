//! The events of a worker: for people, for programs, and for systemd.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use metaservice_fleet::name::WorkerName;
use metaservice_fleet::step::Outcome;
use metaservice_fleet::worker::{Event, Options};
use sd_notify::NotifyState;
use serde_json::{Value, json};

use super::warm::BUILTIN;
use crate::output::printer::Printer;

/// Reports what a worker does.
pub(super) struct Reporter {
    printer: Printer,
    worker: WorkerName,
    has_weights: bool,
}

impl Reporter {
    pub(super) fn new(printer: Printer, options: &Options) -> Self {
        let (worker, has_weights) = (options.name.clone(), options.groups.is_some());
        Self { printer, worker, has_weights }
    }

    /// Reports an event.
    pub(super) fn report(&self, event: &Event) {
        notify(event);
        let (name, mut details, text) = words(event);
        if let Event::Ready = event {
            details["cpuWeight"] = self.has_weights.into();
        }
        self.print(name, details, text.as_deref());
    }

    /// Reports that the metrics are served.
    pub(super) fn serves(&self, address: SocketAddr) {
        let text = format!("metrics at http://{address}/metrics");
        self.print("metrics", json!({ "address": address }), Some(&text));
    }

    fn print(&self, name: &str, mut details: Value, text: Option<&str>) {
        details["time"] = humantime::format_rfc3339_millis(SystemTime::now()).to_string().into();
        details["worker"] = self.worker.as_str().into();
        self.printer.event(name, details);
        if let Some(text) = text {
            self.printer.note(text);
        }
    }
}

/// Tells systemd. Without `NOTIFY_SOCKET`, it does nothing.
fn notify(event: &Event) {
    let state = match event {
        Event::Ready => NotifyState::Ready,
        Event::Draining => NotifyState::Stopping,
        _ => return,
    };
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be notified");
    }
}

/// The name of an event, what it tells programs, and what it tells people.
fn words(event: &Event) -> (&'static str, Value, Option<String>) {
    let (name, details, text) = match event {
        Event::Ready => ("ready", json!({}), "ready".to_owned()),
        Event::Claimed { id, attempt, waited } => (
            "claimed",
            json!({ "id": id, "attempt": attempt, "waitedMs": milliseconds(*waited) }),
            format!("{id}: attempt {attempt} begins"),
        ),
        Event::Started { id, attempt, warm } => {
            return ("started", json!({ "id": id, "attempt": attempt, "warm": warm }), None);
        }
        Event::NotWarm { image, message } => {
            let name = image.as_deref().unwrap_or(BUILTIN);
            let text = format!("no {name} machine waits for jobs: {message}");
            ("notWarm", json!({ "image": image, "message": message }), text)
        }
        Event::Output { id, attempt, after } => {
            let details = json!({ "id": id, "attempt": attempt, "afterMs": milliseconds(*after) });
            return ("output", details, None);
        }
        Event::Ended { id, attempt, outcome, ran } => (
            "ended",
            json!({
                "id": id, "attempt": attempt, "outcome": outcome, "ranMs": milliseconds(*ran),
            }),
            match outcome {
                Outcome::Finished { status, .. } => format!("{id}: ended with status {status}"),
                _ => format!("{id}: cancelled"),
            },
        ),
        Event::Lost { id, attempt, cause, message } => (
            "lost",
            json!({ "id": id, "attempt": attempt, "cause": cause, "message": message }),
            format!("{id}: attempt {attempt} has no result: {message}"),
        ),
        Event::Dropped { id, attempt } => (
            "dropped",
            json!({ "id": id, "attempt": attempt }),
            format!("{id}: attempt {attempt} was dropped: the job is not this worker's any more"),
        ),
        Event::Draining => {
            ("draining", json!({}), "taking no more jobs; Ctrl-C again ends them".to_owned())
        }
        Event::Cut => {
            let text = "no server of the queue answers: the machines were ended";
            ("cut", json!({}), text.to_owned())
        }
        Event::Down => {
            let text = "the queue is down; the machines continue, and logs and results wait here";
            ("down", json!({}), text.to_owned())
        }
        Event::Back => ("back", json!({}), "the queue answers again".to_owned()),
        Event::Full { id, attempt, reason } => (
            "full",
            json!({ "id": id, "attempt": attempt, "reason": reason }),
            format!("{id}: waiting: the queue takes no output: {reason}"),
        ),
        event => ("event", json!({}), format!("{event:?}")),
    };
    (name, details, Some(text))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use metaservice_fleet::step::LostCause;

    use super::*;

    #[test]
    fn each_event_of_a_job_names_it_and_its_attempt() {
        let id = || "a".parse().unwrap();
        let (attempt, moment) = (2, Duration::from_millis(1500));
        let (message, reason) = (String::new(), String::new());
        for (name, event) in [
            ("claimed", Event::Claimed { id: id(), attempt, waited: moment }),
            ("started", Event::Started { id: id(), attempt, warm: true }),
            ("output", Event::Output { id: id(), attempt, after: moment }),
            ("ended", Event::Ended { id: id(), attempt, outcome: Outcome::Cancelled, ran: moment }),
            ("lost", Event::Lost { id: id(), attempt, cause: LostCause::Machine, message }),
            ("dropped", Event::Dropped { id: id(), attempt }),
            ("full", Event::Full { id: id(), attempt, reason }),
        ] {
            let (said, details, _) = words(&event);
            assert_eq!((said, &details["id"], &details["attempt"]), (name, &json!("a"), &json!(2)));
        }
        let (_, details, text) = words(&Event::Output { id: id(), attempt, after: moment });
        assert_eq!((&details["afterMs"], text), (&json!(1500), None));
    }
}
