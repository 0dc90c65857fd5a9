//! The list of jobs.

use metaservice::control::{Job, JobState};
use serde::Serialize;

/// The most jobs of a list. The page says that there are more.
pub const MAX_JOBS: usize = 1000;

/// The most bytes of a text about a job.
const MAX_TEXT: usize = 1024;

/// The list of jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    /// The jobs, the youngest first.
    jobs: Vec<ListedJob>,
    /// How many older ones are left out.
    more: usize,
    /// Whether this is a list: before the first one is made, it is not.
    known: bool,
}

impl Listing {
    /// The list of these jobs: the youngest [`MAX_JOBS`] of them.
    #[must_use]
    pub fn new(mut jobs: Vec<ListedJob>) -> Self {
        let age = |job: &ListedJob| job.queued_ms.unwrap_or(job.started_ms);
        jobs.sort_by(|a, b| (age(b), &a.name).cmp(&(age(a), &b.name)));
        let more = jobs.len().saturating_sub(MAX_JOBS);
        jobs.truncate(MAX_JOBS);
        Self { jobs, more, known: true }
    }

    /// The list of these jobs, where `more` are left out already.
    #[must_use]
    pub fn of_some(jobs: Vec<ListedJob>, more: usize) -> Self {
        let list = Self::new(jobs);
        Self { more: list.more + more, ..list }
    }

    /// The jobs.
    pub(crate) fn jobs(&self) -> &[ListedJob] {
        &self.jobs
    }
}

/// A job of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ListedJob {
    /// Its name.
    pub name: String,
    /// Its state, as the control API writes it.
    pub state: String,
    /// Whether its process has ended.
    pub ended: bool,
    /// Its exit status, if it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// Its command as one line; a long one is cut.
    pub command: String,
    /// The image of its machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// When it was started, in milliseconds since 1970; 0 if this is not known.
    pub started_ms: u64,
    /// When it ended, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// The label that it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whose job it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Its priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// The number of its last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The worker of its last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// When it was submitted, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_ms: Option<u64>,
}

impl ListedJob {
    /// A job that runs.
    #[must_use]
    pub fn running(job: &Job) -> Self {
        Self::of(job)
    }

    /// A job that has ended, at this time if it is known.
    #[must_use]
    pub fn ended(job: &Job, ended_ms: Option<u64>) -> Self {
        Self { ended: true, ended_ms, ..Self::of(job) }
    }

    /// A job whose process does not answer.
    #[must_use]
    pub fn silent(name: &str) -> Self {
        Self { name: text(name), state: "silent".to_owned(), ..Self::default() }
    }

    fn of(job: &Job) -> Self {
        Self {
            name: text(&job.name),
            state: state(job.state).to_owned(),
            ended: false,
            status: job.status,
            command: text(&job.command.join(" ")),
            image: job.machine.get("image").and_then(|image| image.as_str()).map(text),
            started_ms: job.started_ms,
            ..Self::default()
        }
    }
}

const fn state(state: JobState) -> &'static str {
    match state {
        JobState::Waiting => "waiting",
        JobState::Running => "running",
        JobState::Unresponsive => "unresponsive",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Kept => "kept",
        JobState::Lost => "lost",
        _ => "other",
    }
}

/// Text of limited length.
fn text(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, started_ms: u64) -> ListedJob {
        ListedJob { name: name.to_owned(), started_ms, ..ListedJob::default() }
    }

    #[test]
    fn the_youngest_jobs_are_listed_first() {
        let listing = Listing::new(vec![job("b", 1), job("c", 2), job("a", 1)]);
        let names: Vec<_> = listing.jobs.iter().map(|job| job.name.as_str()).collect();
        assert_eq!(names, ["c", "a", "b"]);
        let many = Listing::new((0..1005).map(|n| job("x", n)).collect());
        assert_eq!((many.jobs.len(), many.more, many.jobs[0].started_ms), (1000, 5, 1004));
    }

    #[test]
    fn texts_are_limited() {
        let mut job = Job::lost("a");
        job.command = vec!["\u{e9}".repeat(1000), "b".to_owned()];
        job.machine = serde_json::json!({ "image": "debian" });
        let listed = ListedJob::ended(&job, Some(7));
        assert_eq!(listed.command.len(), MAX_TEXT);
        assert_eq!((listed.state.as_str(), listed.image.as_deref()), ("lost", Some("debian")));
        assert_eq!((listed.ended, listed.ended_ms), (true, Some(7)));
    }
}
