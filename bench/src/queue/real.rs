//! Jobs with machines.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use metaservice_fleet::name::JobId;
use metaservice_fleet::worker::{Event, Warm};
use metaservice_sandbox::Builder;
use tokio::io::AsyncReadExt;

use super::lab::{Lab, job, sample};
use crate::measure::{Better, Comparison, Goal, Measure, Role, Setting, Values};

/// The same job through the queue, and through the library.
pub(super) fn overhead(_: &Setting) -> anyhow::Result<Measure> {
    let how = "`true` in a machine: *queue* from the submission until a client that follows the \
        job has its result, *library* from the same description until its report. Both restore the \
        snapshot of the machine, after one run that does not count.";
    Ok(Measure::new("A job through the queue", how)
        .quantity("time", "s", Better::Less)
        .subject("queue", Role::Metaservice, || {
            sample(async |lab: &Lab| {
                let worker = lab.work(1, Vec::new()).await?;
                through(lab).await?;
                let begun = Instant::now();
                through(lab).await?;
                let time = begun.elapsed();
                worker.end().await?;
                Ok(vec![("time", time.as_secs_f64())])
            })
        })
        .subject("library", Role::Peer, || {
            sample(async |_: &Lab| {
                directly().await?;
                let begun = Instant::now();
                directly().await?;
                Ok(vec![("time", begun.elapsed().as_secs_f64())])
            })
        })
        .goal(Goal::ratio("queue", "time", 1.0, "library").plus(0.1)))
}

async fn through(lab: &Lab) -> anyhow::Result<()> {
    let id = JobId::random();
    lab.queue.submit(&id, &job(&["true"])).await?;
    lab.success(&id).await
}

async fn directly() -> anyhow::Result<()> {
    let (log, mut output) = tokio::io::duplex(4096);
    let mut sandbox = Builder::from_spec(job(&["true"]).spec).log(log).launch().await?;
    let report = sandbox.wait().await;
    drop(sandbox);
    let mut text = Vec::new();
    output.read_to_end(&mut text).await?;
    ensure!(report.status() == 0, "a job failed");
    Ok(())
}

/// From a claim to the first byte of the log.
pub(super) fn start(_: &Setting) -> anyhow::Result<Measure> {
    let how = "`echo` in a machine, from the confirmed claim to the first byte of its log on the \
        worker. *Pool*: the machine waited for ten seconds. *Warm start*: it is restored from its \
        snapshot. *Cold start*: it boots.";
    Ok(Measure::new("From a claim to the first byte of a log", how)
        .quantity("time", "s", Better::Less)
        .subject("pool", Role::Metaservice, || first_byte(true, true))
        .subject("warm start", Role::Metaservice, || first_byte(false, true))
        .subject("cold start", Role::Metaservice, || first_byte(false, false))
        .goal(Goal::ratio("pool", "time", 0.3, "warm start"))
        .goal(Goal::ratio("pool", "time", 0.06, "cold start")))
}

fn first_byte(pool: bool, snapshot: bool) -> anyhow::Result<Values> {
    sample(async |lab: &Lab| {
        let mut request = job(&["echo", "begun"]);
        request.spec.machine.snapshot = snapshot;
        let warm =
            Warm { image: None, memory: Some(request.spec.machine.memory.0), cpus: None, count: 1 };
        let mut worker = lab.work(1, if pool { vec![warm] } else { Vec::new() }).await?;
        if pool {
            wait_for_pool(lab).await?;
            // Its agent rehearses meanwhile.
            tokio::time::sleep(Duration::from_secs(10)).await;
        } else if snapshot {
            // It makes the snapshot if there is none.
            lab.queue.submit(&JobId::random(), &request).await?;
            worker.succeeded(1).await?;
        }
        lab.queue.submit(&JobId::random(), &request).await?;
        let is_warm = worker.event(|event| match event {
            Event::Started { warm, .. } => Some(*warm),
            _ => None,
        });
        ensure!(is_warm.await? == pool, "another kind of start");
        let after = worker.event(|event| match event {
            Event::Output { after, .. } => Some(*after),
            _ => None,
        });
        let after = after.await?;
        worker.end().await?;
        Ok(vec![("time", after.as_secs_f64())])
    })
}

/// Waits until the worker says that a machine waits: with each renewal of its lease.
async fn wait_for_pool(lab: &Lab) -> anyhow::Result<()> {
    let mut leases = lab.queue.leases().await?;
    while leases.next().await?.1.warm == 0 {}
    Ok(())
}

/// How many jobs with machines a worker runs in a minute.
pub(super) fn rate(setting: &Setting) -> anyhow::Result<Measure> {
    let count = setting.pick(4, 20);
    let tool = setting.tool()?.to_owned();
    let how = format!(
        "{count} jobs of `true`, each in its machine, after one that does not count: a worker with \
         1, 2 and 4 slots, and `metaservice run -- true` in a loop. All restore the same snapshot."
    );
    Ok(Measure::new("Jobs with machines in a minute", how)
        .quantity("rate", "jobs/min", Better::More)
        .subject("1 slot", Role::Metaservice, move || through_slots(1, count))
        .subject("2 slots", Role::Metaservice, move || through_slots(2, count))
        .subject("4 slots", Role::Metaservice, move || through_slots(4, count))
        .subject("run in a loop", Role::Peer, move || in_a_loop(&tool, count))
        .goal(Goal::ratio("1 slot", "rate", 1.0, "run in a loop"))
        .comparison(Comparison::new("2 slots", "rate", "run in a loop"))
        .comparison(Comparison::new("4 slots", "rate", "run in a loop")))
}

fn in_a_minute(count: usize, time: Duration) -> Values {
    vec![("rate", count as f64 * 60.0 / time.as_secs_f64())]
}

fn through_slots(slots: u32, count: usize) -> anyhow::Result<Values> {
    Ok(in_a_minute(count, all(count, slots)?))
}

fn in_a_loop(tool: &PathBuf, count: usize) -> anyhow::Result<Values> {
    let run = || {
        let mut command = Command::new(tool);
        command.args(["run", "--memory", "128M", "--", "true"]).stdin(Stdio::null());
        let output = command.env_remove("METASERVICE_NO_SNAPSHOT").output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    run()?;
    let begun = Instant::now();
    (0..count).try_for_each(|_| run())?;
    Ok(in_a_minute(count, begun.elapsed()))
}

/// Many machines of one worker at once.
pub(super) fn crowd(setting: &Setting) -> anyhow::Result<Measure> {
    let many = setting.pick(4, 20);
    let how = format!(
        "{many} jobs at once on a worker with as many slots, each with a machine. *Time* is from \
         the submission of the first to the last result. The reference is the same number of jobs \
         one after the other, on a worker with one slot."
    );
    Ok(Measure::new("Many machines at once", how)
        .quantity("time", "s", Better::Less)
        .subject("at once", Role::Metaservice, move || in_all(many, u32::try_from(many)?))
        .subject("one after the other", Role::Peer, move || in_all(many, 1))
        .goal(Goal::ratio("at once", "time", 1.0, "one after the other")))
}

fn in_all(count: usize, slots: u32) -> anyhow::Result<Values> {
    Ok(vec![("time", all(count, slots)?.as_secs_f64())])
}

/// The time of so many jobs on a worker with so many slots, after one that does not count.
fn all(count: usize, slots: u32) -> anyhow::Result<Duration> {
    sample(async |lab: &Lab| {
        let mut worker = lab.work(slots, Vec::new()).await?;
        through(lab).await?;
        worker.succeeded(1).await?;
        let begun = Instant::now();
        for _ in 0..count {
            lab.queue.submit(&JobId::random(), &job(&["true"])).await?;
        }
        worker.succeeded(count).await?;
        let time = begun.elapsed();
        worker.end().await?;
        Ok(time)
    })
}
