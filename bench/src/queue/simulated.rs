//! Jobs without machines: the numbers are those of the queue.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::Queue;
use metaservice_fleet::request::Request;

use super::lab::{Lab, Runs, job, sample};
use crate::loopback::process::status;
use crate::measure::{Better, Comparison, Goal, Measure, Role, Setting, Values};
use crate::statistics::{Summary, percentile};

/// Submissions that are on their way at once.
const AT_ONCE: usize = 64;

/// Between two submissions of a steady client: 50 jobs in a second.
const PACE: Duration = Duration::from_millis(20);

/// Submits so many jobs as fast as the server takes them. Returns their ids.
async fn submit(queue: &Queue, request: &Request, count: usize) -> anyhow::Result<Vec<JobId>> {
    let submitting = stream::iter(0..count).map(|_| async {
        let id = JobId::random();
        queue.submit(&id, request).await?;
        anyhow::Ok(id)
    });
    submitting.buffer_unordered(AT_ONCE).try_collect().await
}

/// The time from a submission to the start of its job, at a steady rate.
pub(super) fn dispatch(setting: &Setting) -> anyhow::Result<Measure> {
    let count = setting.pick(50, 500);
    let how = format!(
        "{count} jobs, 50 in a second, on an idle worker of 64 slots. *Submit to start* is the \
         time from the call of the client to the start of the job's command, which is simulated. The \
         limit is *submit*: the same call until the server has confirmed it. A job needs one more \
         such write, the claim, before it starts."
    );
    Ok(Measure::new("From a submission to the start of a job", how)
        .quantity("p50", "ms", Better::Less)
        .quantity("p99", "ms", Better::Less)
        .subject("submit to start", Role::Metaservice, move || steady(count, true))
        .subject("submit", Role::Limit, move || steady(count, false))
        .goal(Goal::ratio("submit to start", "p50", 4.0, "submit").plus(2.0))
        .goal(Goal::absolute("submit to start", "p99", 100.0))
        .comparison(Comparison::new("submit to start", "p99", "submit")))
}

fn steady(count: usize, to_start: bool) -> anyhow::Result<Values> {
    sample(async |lab: &Lab| {
        let runs = Runs::default();
        let mut worker = lab.simulate(64, &runs).await?;
        let (request, mut sent) = (job(&["true"]), Vec::with_capacity(count));
        let mut pace = tokio::time::interval(PACE);
        for _ in 0..count {
            pace.tick().await;
            let (id, at) = (JobId::random(), Instant::now());
            lab.queue.submit(&id, &request).await?;
            sent.push((id, at, at.elapsed()));
        }
        worker.succeeded(count).await?;
        worker.end().await?;
        let time = |(id, at, confirmed): &(JobId, Instant, Duration)| {
            let begun = runs.begun(id)?;
            Some(if to_start { begun.duration_since(*at) } else { *confirmed })
        };
        let times: Option<Vec<Duration>> = sent.iter().map(time).collect();
        let times = times.context("a job did not start")?;
        let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        let mut of = |rank| percentile(&mut times, rank).unwrap_or(f64::NAN);
        Ok([("p50", 0.5), ("p99", 0.99)].map(|(name, rank)| (name, of(rank))).to_vec())
    })
}

/// How fast jobs are submitted, and how fast a worker takes them.
pub(super) fn backlog(setting: &Setting) -> anyhow::Result<Measure> {
    let count = setting.pick(500, 10_000);
    let how = format!(
        "{count} jobs, {AT_ONCE} submissions at once, and then one worker of 64 slots that runs \
         them all; the commands are simulated. A submission is one confirmed write, a run two: the \
         claim and the result."
    );
    Ok(Measure::new("A queue that is filled and emptied", how)
        .quantity("rate", "jobs/s", Better::More)
        .subject("run", Role::Metaservice, move || fill_and_empty(count, true))
        .subject("submit", Role::Limit, move || fill_and_empty(count, false))
        .goal(Goal::ratio("run", "rate", 0.25, "submit")))
}

fn fill_and_empty(count: usize, empty: bool) -> anyhow::Result<Values> {
    sample(async |lab: &Lab| {
        let begun = Instant::now();
        submit(&lab.queue, &job(&["true"]), count).await?;
        let submitted = begun.elapsed();
        if !empty {
            return Ok(vec![("rate", count as f64 / submitted.as_secs_f64())]);
        }
        let begun = Instant::now();
        let mut worker = lab.simulate(64, &Runs::default()).await?;
        worker.succeeded(count).await?;
        let ran = begun.elapsed();
        worker.end().await?;
        Ok(vec![("rate", count as f64 / ran.as_secs_f64())])
    })
}

/// The memory of a worker with many waiting jobs.
pub(super) fn memory(setting: &Setting) -> anyhow::Result<Measure> {
    let count = setting.pick(2_000, 100_000);
    let how = format!(
        "One worker of one slot, which runs a long job while {count} others wait. *Resident* is \
         what the process of the worker has more than before it began, *start* the time until it \
         has read the queue."
    );
    Ok(Measure::new("A worker with many waiting jobs", how)
        .quantity("resident", "MiB", Better::Less)
        .quantity("per job", "KiB", Better::Less)
        .quantity("start", "s", Better::Less)
        .subject("worker", Role::Metaservice, move || {
            sample(async |lab: &Lab| {
                submit(&lab.queue, &job(&["true"]), count).await?;
                let resident = || status(std::process::id(), "VmRSS");
                let (before, begun) = (resident()?, Instant::now());
                let worker = lab.simulate(1, &Runs::of(Duration::from_secs(3600))).await?;
                let start = begun.elapsed().as_secs_f64();
                let more = (resident()? - before).max(0.0);
                // Its job is long: it ends with its value.
                drop(worker);
                Ok(vec![
                    ("resident", more / 1024.0),
                    ("per job", more / count as f64),
                    ("start", start),
                ])
            })
        })
        .goal(Goal::absolute("worker", "per job", 4.0)))
}

/// How long a tenant with few jobs waits behind one with many.
pub(super) fn fairness(setting: &Setting) -> anyhow::Result<Measure> {
    let (many, few) = (setting.pick(200, 1000), 10);
    let how = format!(
        "A tenant has {many} jobs in the queue, and then another submits {few}. One worker of 8 \
         slots; each job takes 20 ms, simulated. The wait of a job is from its submission to its \
         start. Both tenants are of one run, so each has its own round."
    );
    Ok(Measure::new("Two tenants", how)
        .quantity("median wait", "s", Better::Less)
        .subject("tenant with few jobs", Role::Metaservice, move || waits(many, few, true))
        .subject("tenant with many jobs", Role::Peer, move || waits(many, few, false))
        .goal(Goal::ratio("tenant with few jobs", "median wait", 0.1, "tenant with many jobs")))
}

fn waits(many: usize, few: usize, of_few: bool) -> anyhow::Result<Values> {
    sample(async |lab: &Lab| {
        let runs = Runs::of(Duration::from_millis(20));
        let (mut large, mut small) = (job(&["true"]), job(&["true"]));
        (large.tenant, small.tenant) = ("large".parse()?, "small".parse()?);
        let large = submit(&lab.queue, &large, many).await?;
        let mut worker = lab.simulate(8, &runs).await?;
        let begun = Instant::now();
        let small = submit(&lab.queue, &small, few).await?;
        worker.succeeded(many + few).await?;
        worker.end().await?;
        let ids = if of_few { small } else { large };
        let wait = |id| runs.begun(id).map(|at| at.saturating_duration_since(begun).as_secs_f64());
        let waits = Summary::of(ids.iter().filter_map(wait)).context("no job started")?;
        Ok(vec![("median wait", waits.median)])
    })
}
