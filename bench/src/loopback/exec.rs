//! Measures the time of a command that does nothing.

use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::pair::Pair;
use crate::measure::{Better, Goal, Measure, Role, Setting, Values};
use crate::statistics::percentile;

/// The pause before each call, as a person or a script makes it.
const PAUSE: Duration = Duration::from_millis(10);

/// The calls before the measured ones.
pub(super) const WARM_UP: usize = 20;

pub(super) fn prepare(setting: &Setting) -> anyhow::Result<Measure> {
    let calls = setting.pick(60, 300);
    let pair = Rc::new(Pair::idle(setting.agent()?)?);
    let how = format!(
        "`exec([\"true\"])` until its exit status arrives, {calls} times, with a pause of {} \
         ms before each; *back to back* is the same without pauses. The limit is to spawn the same \
         command in this process and wait for it, with the same pauses. For comparison: QEMU's \
         guest agent on a local socket, polled without a pause, takes 1.2 ms in total; ssh over an \
         existing connection takes about 100 ms.",
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
        .subject("exec", Role::Metaservice, move || times(calls, PAUSE, || exec(&paused)))
        .subject("exec, back to back", Role::Metaservice, move || {
            times(calls, Duration::ZERO, || exec(&at_once))
        })
        .goal(Goal::ratio("exec", "p50", 1.0, "spawn and wait").plus(0.3))
        .goal(Goal::absolute("exec", "p99", 3.0).against("exec", "p50")))
}

fn exec(pair: &Pair) -> anyhow::Result<()> {
    pair.runtime.block_on(async {
        let shell = pair.service.exec(["true"]).spawn().await?;
        anyhow::ensure!(shell.wait().await?.success(), "true is false");
        Ok(())
    })
}

/// Measures calls: the median and the 99th percentile in milliseconds.
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

/// Pauses. The pause is part of the measure; it does not wait for an event.
fn wait(pause: Duration) {
    if !pause.is_zero() {
        std::thread::park_timeout(pause);
    }
}
