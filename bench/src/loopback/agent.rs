//! Measures the memory and threads that the agent uses in the guest.

use std::fs;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use super::pair::Pair;
use super::process::status;
use crate::measure::{Better, Goal, Measure, Role, Setting, Values};

/// Concurrent shells.
const SHELLS: usize = 64;

pub(super) fn prepare(setting: &Setting) -> anyhow::Result<Measure> {
    let agent = setting.agent()?.to_owned();
    let file = fs::metadata(&agent)?.len() as f64 / 1048576.0;
    let busy = agent.clone();
    let how = format!(
        "The agent, built as for guests. *Idle*: its job runs and its poll waits. *{SHELLS} \
         shells*: {SHELLS} shells, each with its own connection, have just echoed a byte. The \
         supervisor of the command sends the log. It is a separate process and is not in these \
         numbers."
    );
    Ok(Measure::new("The agent in the guest", how)
        .quantity("file", "MiB", Better::Less)
        .quantity("resident", "MiB", Better::Less)
        .quantity("threads", "", Better::Less)
        .subject("idle", Role::Metaservice, move || {
            let pair = Pair::idle(&agent)?;
            pair.runtime.block_on(echo(&pair, 1))?;
            let mut values = usage(pair.agent())?;
            values.push(("file", file));
            Ok(values)
        })
        .subject("64 shells", Role::Metaservice, move || {
            let pair = Pair::idle(&busy)?;
            let shells = pair.runtime.block_on(echo(&pair, SHELLS))?;
            let values = usage(pair.agent());
            drop(shells);
            values
        })
        .goal(Goal::absolute("idle", "file", 4.0))
        .goal(Goal::absolute("idle", "resident", 6.0))
        .goal(Goal::absolute("64 shells", "resident", 6.0))
        .goal(Goal::absolute("64 shells", "threads", 8.0)))
}

fn usage(process: u32) -> anyhow::Result<Values> {
    let resident = status(process, "VmRSS")? / 1024.0;
    Ok(vec![("resident", resident), ("threads", status(process, "Threads")?)])
}

/// Starts shells and waits until each has echoed a byte.
async fn echo(pair: &Pair, count: usize) -> anyhow::Result<Vec<metaservice::Child>> {
    let mut shells = Vec::new();
    for _ in 0..count {
        let mut shell = pair.service.exec(["cat"]).spawn().await?;
        let mut byte = [0];
        if let (Some(input), Some(output)) = (&mut shell.stdin, &mut shell.stdout) {
            input.write_all(b"x").await?;
            input.flush().await?;
            output.read_exact(&mut byte).await?;
        }
        shells.push(shell);
    }
    Ok(shells)
}
