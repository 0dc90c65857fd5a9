//! How long a command of no length takes.

use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::pair::Pair;
use crate::measure::{Better, Goal, Measure, Role, Setting, Values};
use crate::statistics::percentile;

/// The pause before each call: about what a person or a script leaves.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls before those that count.
pub(super) const WARM_UP: usize = 20;

pub(super) fn prepare(setting: &Setting) -> anyhow::Result<Measure> {
    let calls = setting.pick(60, 300);
    let pair = Rc::new(Pair::idle(setting.agent()?)?);
    let how = format!(
        "`exec_shell([\"true\"])` until its exit status is there, {calls} times with a pause of {} ms before each; *back to back* is the same with no pause. The floor is to spawn \
         the same command in this process and to wait for it, with the same pauses. QEMU's guest agent on a local socket that is polled without a pause is known to take 1.2 ms in all, ssh over a connection that is there already \
         about 100 ms.",
        PAUSE.as_millis(),
    );
    let (paused, at_once) = (Rc::clone(&pair), pair);
    Ok(Measure::new("Exec: `true` until its exit status", how)
        .quantity("p50", "ms", Better::Less)
        .quantity("p99", "ms", Better::Less)
        .subject("spawn and wait", Role::Limit, move || {
            times(calls, PAUSE, || {
                let mut child = Command::new("true").stdin(Stdio::null()).spawn()?;
                anyhow::ensure!(child.wait()?.success(), "true is false");
                Ok(())
            })
        })
        .subject("exec", Role::Ours, move || times(calls, PAUSE, || exec(&paused)))
        .subject("exec, back to back", Role::Ours, move || {
            times(calls, Duration::ZERO, || exec(&at_once))
        })
        .goal(Goal::ratio("exec", "p50", 1.0, "spawn and wait").plus(0.3))
        .goal(Goal::absolute("exec", "p99", 3.0).against("exec", "p50")))
}

fn exec(pair: &Pair) -> anyhow::Result<()> {
    pair.runtime.block_on(async {
        let shell = pair.service.exec_shell(["true"], false).await?;
        anyhow::ensure!(shell.wait().await?, "true is false");
        Ok(())
    })
}

/// The median and the 99th percentile of so many calls, in milliseconds.
pub(super) fn times(
    calls: usize,
    pause: Duration,
    mut call: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Values> {
    let mut times = Vec::with_capacity(calls);
    for number in 0..WARM_UP + calls {
        wait(pause);
        let begun = Instant::now();
        call()?;
        if number >= WARM_UP {
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(percentiles(&mut times))
}

pub(super) fn percentiles(times: &mut [f64]) -> Values {
    let mut at = |rank| percentile(times, rank).unwrap_or(f64::NAN);
    vec![("p50", at(0.5)), ("p99", at(0.99))]
}

/// Lets time pass: here that is the subject, not a way to wait for something.
fn wait(pause: Duration) {
    if !pause.is_zero() {
        std::thread::park_timeout(pause);
    }
}
