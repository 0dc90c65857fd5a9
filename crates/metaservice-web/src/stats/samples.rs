//! Asks the guests of jobs for reports.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use metaservice::control::{ClientError, Code, JobState};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::series::{Chart, Series};
use crate::source::{Found, ListedJob, Listing, Reached, Source};

/// How often a guest reports.
const INTERVAL: Duration = Duration::from_secs(2);

/// The most jobs whose reports are kept. Each has some 50 KiB.
const MAX_JOBS: usize = 64;

/// The most jobs of the list that report without a page that shows them.
const MAX_LISTED: usize = 32;

/// The most points of a job in [`Usage`].
const MAX_RECENT: usize = 60;

/// How long reports are collected before the list gets them.
const PACE: Duration = Duration::from_secs(1);

/// How often a guest is asked again when its reports break.
const MAX_BREAKS: u32 = 5;

/// The pause before that.
const PAUSE: Duration = Duration::from_secs(2);

/// What the jobs of the list use.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Usage {
    jobs: BTreeMap<String, Recent>,
}

/// What a job used lately.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Recent {
    started_ms: u64,
    cpus: u32,
    cpu: Vec<f64>,
    memory: Vec<u64>,
    memory_total: u64,
}

/// The reports of jobs.
pub(crate) struct Samples {
    source: Arc<dyn Source>,
    /// The one that was asked for last is the last.
    jobs: Mutex<VecDeque<Sampled>>,
    changed: Arc<Notify>,
    usage: watch::Sender<Usage>,
}

/// The reports of a job. Dropping it ends its task.
struct Sampled {
    name: String,
    started_ms: u64,
    chart: watch::Receiver<Chart>,
    _asking: AbortOnDropHandle<()>,
}

impl Samples {
    /// No job reports.
    pub(crate) fn new(source: Arc<dyn Source>) -> Self {
        let usage = watch::Sender::default();
        Self { source, jobs: Mutex::default(), changed: Arc::default(), usage }
    }

    /// Whether there is a chart of the job that was started then.
    pub(crate) fn has(&self, name: &str, started_ms: u64) -> bool {
        self.lock().iter().any(|job| job.name == name && job.started_ms == started_ms)
    }

    /// The chart of a job that was started then. It begins now, if it has not begun.
    pub(crate) fn chart(&self, name: &str, started_ms: u64) -> watch::Receiver<Chart> {
        let mut jobs = self.lock();
        let is_this = |job: &Sampled| job.name == name && job.started_ms == started_ms;
        // One whose guest did not answer, maybe because it booted, is asked again.
        if let Some(at) = jobs.iter().position(is_this)
            && let Some(job) = jobs.remove(at)
            && (job.chart.borrow().live || !job.chart.borrow().times.is_empty())
        {
            let chart = job.chart.clone();
            jobs.push_back(job);
            return chart;
        }
        while jobs.len() >= MAX_JOBS {
            // Those that have ended go first.
            let over = jobs.iter().position(|job| !job.chart.borrow().live).unwrap_or(0);
            jobs.remove(over);
        }
        let (sender, chart) = watch::channel(Chart { live: true, ..Chart::default() });
        let asker = Asker {
            name: name.to_owned(),
            started_ms,
            source: Arc::clone(&self.source),
            series: Series::default(),
            chart: sender,
            changed: Arc::clone(&self.changed),
        };
        let asking = AbortOnDropHandle::new(tokio::spawn(asker.run()));
        let name = name.to_owned();
        jobs.push_back(Sampled { name, started_ms, chart: chart.clone(), _asking: asking });
        chart
    }

    /// What the jobs of the list use.
    pub(crate) fn usage(&self) -> watch::Receiver<Usage> {
        self.usage.subscribe()
    }

    /// Asks the jobs of the list that run, as long as it is polled. Completes when the list ends.
    pub(crate) async fn follow(&self, mut lists: watch::Receiver<Listing>) {
        loop {
            let running: Vec<(String, u64)> = {
                let list = lists.borrow_and_update();
                let runs = |job: &&ListedJob| !job.ended && job.state == "running";
                let running = list.jobs().iter().filter(runs).take(MAX_LISTED);
                running.map(|job| (job.name.clone(), job.started_ms)).collect()
            };
            for (name, started_ms) in running {
                drop(self.chart(&name, started_ms));
            }
            tokio::select! {
                changed = lists.changed() => if changed.is_err() {
                    return;
                },
                () = self.publish() => {}
            }
        }
    }

    /// Publishes what jobs use, after each report.
    async fn publish(&self) {
        self.changed.notified().await;
        sleep(PACE).await;
        let usage = Usage { jobs: self.lock().iter().filter_map(Sampled::recent).collect() };
        self.usage.send_if_modified(|known| {
            let changed = *known != usage;
            *known = usage;
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Sampled>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sampled {
    /// What the job used lately. `None`: it does not run.
    fn recent(&self) -> Option<(String, Recent)> {
        let chart = self.chart.borrow();
        let from = chart.times.len().saturating_sub(MAX_RECENT);
        let recent = Recent {
            started_ms: self.started_ms,
            cpus: chart.cpus,
            cpu: chart.cpu[from..].to_vec(),
            memory: chart.memory[from..].to_vec(),
            memory_total: chart.memory_total,
        };
        chart.live.then(|| (self.name.clone(), recent))
    }
}

/// Asks the guest of one job.
struct Asker {
    name: String,
    started_ms: u64,
    source: Arc<dyn Source>,
    series: Series,
    chart: watch::Sender<Chart>,
    changed: Arc<Notify>,
}

/// Why no more reports come.
enum Over {
    /// The job has ended, or another one has its name.
    Ended,
    /// The guest cannot report.
    Never(String),
    /// The connection broke.
    Broken,
}

impl Asker {
    async fn run(mut self) {
        self.series.set_live(true, None);
        let mut breaks = 0;
        let problem = loop {
            let before = self.series.chart().times.len();
            match self.ask().await {
                Over::Ended => break None,
                Over::Never(why) => break Some(why),
                Over::Broken => {
                    breaks = if self.series.chart().times.len() > before { 0 } else { breaks + 1 };
                }
            }
            if breaks >= MAX_BREAKS {
                break Some("the guest does not report".to_owned());
            }
            sleep(PAUSE).await;
        };
        self.series.set_live(false, problem);
        self.publish();
    }

    fn publish(&self) {
        self.chart.send_replace(self.series.chart().clone());
        self.changed.notify_one();
    }

    async fn ask(&mut self) -> Over {
        let client = match self.source.find(&self.name, None).await {
            Ok(Found::Running(client)) => client,
            Ok(Found::Waiting(_)) | Err(_) => return Over::Broken,
            Ok(Found::Ended(_)) => return Over::Ended,
        };
        match self.reports(&client).await {
            Ok(over) => over,
            Err(error) if error.code() == Some(Code::Unsupported) => {
                Over::Never("the agent of this guest does not report".to_owned())
            }
            Err(error) if matches!(error.code(), Some(Code::Refused | Code::NotFound)) => {
                Over::Never(error.to_string())
            }
            Err(_) => Over::Broken,
        }
    }

    /// Ends when the job does, or the reports break.
    async fn reports(&mut self, client: &Reached) -> Result<Over, ClientError> {
        let job = client.wait_for_start().await?;
        let runs = matches!(job.state, JobState::Running | JobState::Unresponsive | JobState::Kept);
        if job.started_ms != self.started_ms || !runs {
            return Ok(Over::Ended);
        }
        let mut reports = client.stats(Some(INTERVAL)).await?;
        while let Some(Ok(report)) = reports.next().await {
            self.series.push(now_ms(), report);
            self.publish();
        }
        Ok(Over::Broken)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
