//! `metaservice exec [-i] JOB -- COMMAND`: a command beside the job's own.

use anyhow::{Context, Result};
use metaservice::{Shell, ShellOutput};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::args::ExecArgs;
use crate::interrupts::Interrupts;
use crate::sockets;
use crate::status::ExitStatus;

pub(crate) async fn exec(args: ExecArgs) -> Result<ExitStatus> {
    let client = sockets::find(&args.job).await?;
    let mut interrupts = Interrupts::listen()?;
    let opening = async {
        client
            .exec_shell(&args.command, false)
            .await
            .with_context(|| format!("cannot run in {}", args.job))
    };
    let mut shell = tokio::select! {
        shell = opening => shell?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    tokio::select! {
        success = attend(&mut shell, args.interactive) => {
            Ok(if success? { ExitStatus::SUCCESS } else { ExitStatus(1) })
        }
        interrupt = interrupts.next() => {
            shell.abort();
            Ok(ExitStatus::signal(interrupt.number))
        }
    }
}

async fn attend(shell: &mut Shell, interactive: bool) -> Result<bool> {
    let stdin = shell.stdin.take();
    // Reading our stdin cannot be cancelled; it does not outlive the process.
    let feeding = stdin.filter(|_| interactive).map(|mut stdin| {
        tokio::spawn(async move {
            // A command that no longer reads has ended, which is told by its status.
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut stdin).await;
            let _ = stdin.shutdown().await;
        })
    });
    let outputs = tokio::try_join!(
        show(shell.stdout.take(), tokio::io::stdout()),
        show(shell.stderr.take(), tokio::io::stderr()),
    );
    let success = shell.wait().await;
    if let Some(feeding) = feeding {
        feeding.abort();
    }
    let success = success?;
    outputs.context("cannot show the command's output")?;
    Ok(success)
}

async fn show(output: Option<ShellOutput>, mut to: impl AsyncWrite + Unpin) -> std::io::Result<()> {
    let Some(mut output) = output else { return Ok(()) };
    tokio::io::copy(&mut output, &mut to).await?;
    to.flush().await
}
