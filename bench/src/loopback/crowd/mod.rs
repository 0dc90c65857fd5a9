//! Measures many guests on one host process: ten thousand that wait, a thousand that log.
//!
//! The host is a separate process, so that its memory and processor time can be measured alone. The
//! guests are simulated: the requests of an agent without the agent.

mod guests;
mod host;

use std::time::Duration;

use self::guests::{Crowd, Lines};
pub(crate) use self::host::host;
use super::process::{cpu_seconds, status};
use crate::measure::{Better, Goal, Measure, Role, Setting, Values};

/// The number of measured actions.
const ACTIONS: usize = 1000;

pub(super) fn prepare_idle(setting: &Setting) -> anyhow::Result<Measure> {
    let jobs = setting.pick(2000, 10_000);
    let seconds = setting.pick(3, 10);
    let how = format!(
        "One process hosts {jobs} jobs with the library. Each has a guest whose poll waits. \
         *Memory* is the resident memory of the process divided by the number of guests. \
         *Processor* is its processor time during {seconds} s without activity. *p50* and *p99* \
         are of {ACTIONS} calls of `kill` to random guests, in sequence, from the call to \
         its return: the action goes out on the poll, and the guest replies on another connection \
         and polls again."
    );
    Ok(Measure::new("Idle guests on one host process", how)
        .quantity("memory", "KiB/guest", Better::Less)
        .quantity("processor", "%", Better::Less)
        .quantity("p50", "ms", Better::Less)
        .quantity("p99", "ms", Better::Less)
        .subject("host", Role::Metaservice, move || idle(jobs, Duration::from_secs(seconds)))
        .goal(Goal::absolute("host", "memory", 10.0))
        .goal(Goal::absolute("host", "processor", 0.05))
        .goal(Goal::absolute("host", "p99", 5.0)))
}

fn idle(jobs: usize, time: Duration) -> anyhow::Result<Values> {
    let mut crowd = Crowd::start(jobs)?;
    crowd.poll()?;
    let resident = status(crowd.process(), "VmRSS")?;
    let before = cpu_seconds(crowd.process())?;
    crowd.wait(time);
    let used = cpu_seconds(crowd.process())? - before;
    let answer = crowd.ask(&format!("act {ACTIONS}"))?;
    let mut words = answer.split(' ').map(str::parse::<f64>);
    let mut next = || words.next().unwrap_or(Ok(f64::NAN));
    Ok(vec![
        ("memory", resident / jobs as f64),
        ("processor", used / time.as_secs_f64() * 100.0),
        ("p50", next()?),
        ("p99", next()?),
    ])
}

pub(super) fn prepare_logs(setting: &Setting) -> anyhow::Result<Measure> {
    let jobs = 1000;
    let lines = Lines { each: setting.pick(300, 1000), every: Duration::from_millis(10) };
    let how = format!(
        "One process hosts {jobs} jobs. Each guest has an open log request and sends a line of 80 \
         bytes every 10 ms, {} lines in total, each as a separate chunk. *Delivered* is the part \
         that has reached the log sinks 1 s after the last line. *Spread* is the maximum number of \
         lines that a guest has delivered divided by the minimum, the worst of ten samples during \
         the run. *Processor* is the processor time of the host divided by the time in which lines \
         were sent. *Time* is the latter: 100 lines a second take {} s, and more if the guests, \
         which share the machine, cannot send as fast.",
        lines.each,
        lines.each / 100,
    );
    Ok(Measure::new("A thousand guests that log", how)
        .quantity("delivered", "%", Better::More)
        .quantity("spread", "×", Better::Less)
        .quantity("processor", "%", Better::Less)
        .quantity("time", "s", Better::Less)
        .subject("host", Role::Metaservice, move || logs(jobs, lines))
        .goal(Goal::absolute("host", "delivered", 100.0))
        .goal(Goal::absolute("host", "spread", 2.0)))
}

fn logs(jobs: usize, lines: Lines) -> anyhow::Result<Values> {
    let mut crowd = Crowd::start(jobs)?;
    let before = cpu_seconds(crowd.process())?;
    let (time, spread) = crowd.log(lines)?;
    let used = cpu_seconds(crowd.process())? - before;
    crowd.wait(Duration::from_secs(1));
    let (_, _, all) = crowd.delivered()?;
    Ok(vec![
        ("delivered", all as f64 / (jobs * lines.each) as f64 * 100.0),
        ("spread", spread),
        ("processor", used / time.as_secs_f64() * 100.0),
        ("time", time.as_secs_f64()),
    ])
}
