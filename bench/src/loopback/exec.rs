//! How long a command of no length takes.

use std::process::{Command, Stdio};
use std::time::Instant;

use super::pair::Pair;
use crate::measure::{Better, Goal, Measure, Role, Setting, Values};
use crate::statistics::percentile;

/// Calls before those that count.
const WARM_UP: usize = 20;

pub(super) fn prepare(setting: &Setting) -> anyhow::Result<Measure> {
    let calls = setting.pick(200, 1000);
    let pair = Pair::idle(setting.agent()?)?;
    let how = format!(
        "`exec_shell([\"true\"])` until its exit status is there, {calls} times one after the other, with no pause. The floor is to spawn the same command \
         in this process and to wait for it. QEMU's guest agent on a local socket that is polled without a pause is known to take 1.2 ms in all, ssh over a \
         connection that is there already about 100 ms."
    );
    Ok(Measure::new("Exec: `true` until its exit status", how)
        .quantity("p50", "ms", Better::Less)
        .quantity("p99", "ms", Better::Less)
        .subject("spawn and wait", Role::Limit, move || {
            times(calls, || {
                let mut child = Command::new("true").stdin(Stdio::null()).spawn()?;
                anyhow::ensure!(child.wait()?.success(), "true is false");
                Ok(())
            })
        })
        .subject("exec", Role::Ours, move || {
            times(calls, || {
                pair.runtime.block_on(async {
                    let shell = pair.service.exec_shell(["true"], false).await?;
                    anyhow::ensure!(shell.wait().await?, "true is false");
                    Ok(())
                })
            })
        })
        .goal(Goal::ratio("exec", "p50", 1.0, "spawn and wait").plus(0.3))
        .goal(Goal::absolute("exec", "p99", 3.0).against("exec", "p50")))
}

/// The median and the 99th percentile of so many calls, in milliseconds.
pub(super) fn times(
    calls: usize,
    mut call: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Values> {
    let mut times = Vec::with_capacity(calls);
    for number in 0..WARM_UP + calls {
        let begun = Instant::now();
        call()?;
        if number >= WARM_UP {
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    let mut at = |rank| percentile(&mut times, rank).unwrap_or(f64::NAN);
    Ok(vec![("p50", at(0.5)), ("p99", at(0.99))])
}
