//! A job as a row of the list.

use std::time::Duration;

use metaservice::control::{Job, JobState};
use metaservice_sandbox::ListedJob;
use metaservice_sandbox::spec::Size;
use serde_json::{Value, json};

use super::format::Field;
use crate::output::printer::printable;
use crate::output::{age, contact};

/// The text of a field: one line, fit for a terminal, and `-` if it is not known. `now_ms` is the
/// time since 1970.
pub(super) fn cell(row: &ListedJob, field: Field, now_ms: u64) -> String {
    let text = match row {
        ListedJob::Running(job) => of_job(job, field, now_ms, true),
        ListedJob::Ended(past) => of_job(&past.job, field, now_ms, false),
        ListedJob::Silent { name, pid } => match field {
            Field::Name => Some(name.clone()),
            Field::State => Some(ListedJob::SILENT.to_owned()),
            Field::Pid => pid.map(|pid| pid.to_string()),
            Field::Command => Some("(does not answer: stopped or stuck)".to_owned()),
            _ => None,
        },
        _ => None,
    };
    let text = text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
    printable(&text).replace(['\n', '\t'], " ")
}

fn of_job(job: &Job, field: Field, now_ms: u64, runs: bool) -> Option<String> {
    let machine = |key: &str| job.machine.get(key);
    let text = |key| machine(key).and_then(Value::as_str).map(str::to_owned);
    match field {
        Field::Name => Some(job.name.clone()),
        Field::State => Some(state(job)),
        Field::Age if job.started_ms == 0 => None,
        Field::Age => Some(age(Duration::from_millis(now_ms.saturating_sub(job.started_ms)))),
        Field::Image => text("image"),
        Field::Cpu => machine("cpus").and_then(Value::as_u64).map(|cpus| cpus.to_string()),
        Field::Memory => {
            machine("memory").and_then(Value::as_u64).map(|bytes| Size(bytes).to_string())
        }
        Field::Accel => text("accelerator"),
        Field::Pid => runs.then(|| job.pid.to_string()),
        Field::Command => Some(job.command.join(" ")),
    }
}

/// The state, with the status of a job that has failed.
fn state(job: &Job) -> String {
    let ended = matches!(job.state, JobState::Succeeded | JobState::Failed | JobState::Kept);
    if let Some(contact) = contact::word(job.contact).filter(|_| !ended) {
        return contact.to_owned();
    }
    let state = json!(job.state).as_str().unwrap_or_default().to_owned();
    match job.status {
        Some(status) if matches!(job.state, JobState::Failed | JobState::Kept) => {
            format!("{state} ({status})")
        }
        _ => state,
    }
}

#[cfg(test)]
mod tests {
    use metaservice_sandbox::history::PastJob;

    use super::*;

    fn job(more: &Value) -> Job {
        let mut job =
            json!({ "name": "a", "command": ["make", "a\nb"], "state": "running", "pid": 7 });
        for (key, value) in more.as_object().unwrap() {
            job[key] = value.clone();
        }
        serde_json::from_value(job).unwrap()
    }

    fn cells(row: &ListedJob) -> String {
        Field::all().map(|field| cell(row, field, 100_000)).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn a_row_has_what_the_machine_has() {
        let machine =
            json!({ "image": "debian", "cpus": 2, "memory": 2u64 << 30, "accelerator": "kvm" });
        let running = job(&json!({ "startedMs": 40_000, "machine": machine }));
        let running = ListedJob::Running(Box::new(running));
        assert_eq!(cells(&running), "a|running|60s|debian|2|2G|kvm|7|make a b");
        let elsewhere = ListedJob::Running(Box::new(job(&json!({ "contact": "silent" }))));
        assert_eq!(cells(&elsewhere), "a|unresponsive|-|-|-|-|-|7|make a b");
        let silent = ListedJob::Silent { name: "b\u{1b}[2J".to_owned(), pid: None };
        assert!(cells(&silent).starts_with("b\u{fffd}[2J|silent|-|-|-|-|-|-|(does not answer"));
    }

    #[test]
    fn a_failed_job_has_its_status_and_no_process() {
        let failed =
            json!({ "state": "failed", "status": 3, "contact": "silent", "startedMs": 90_000 });
        let failed = serde_json::from_value::<PastJob>(json!(job(&failed))).unwrap();
        assert_eq!(
            cells(&ListedJob::Ended(Box::new(failed))),
            "a|failed (3)|10s|-|-|-|-|-|make a b"
        );
    }

    #[test]
    fn a_time_has_one_unit() {
        let of = |seconds| age(Duration::from_secs(seconds));
        assert_eq!(
            [0, 119, 120, 7199, 7200, 172_800].map(of),
            ["0s", "119s", "2m", "119m", "2h", "2d"]
        );
        // If the clock was set back, the age is 0.
        let young = ListedJob::Running(Box::new(job(&json!({ "startedMs": 200_000 }))));
        assert_eq!(cell(&young, Field::Age, 100_000), "0s");
    }
}
