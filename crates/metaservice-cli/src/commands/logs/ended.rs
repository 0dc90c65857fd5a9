//! The log of a job that has ended.

use anyhow::{Context, Result};
use metaservice::{LogFrom, LogItem, LogReader};
use metaservice_sandbox::history::PastJob;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufReader};

use super::tail::show_tail;
use crate::output::AsyncOutput;
use crate::output::printer::Printer;

/// The size of the buffer between the file and the search for the last lines.
const BUFFER: usize = 256 * 1024;

/// Prints the log from `from` on, or the last `tail` lines of that.
pub(super) async fn show(
    past: &PastJob,
    from: LogFrom,
    tail: Option<u64>,
    printer: Printer,
) -> Result<()> {
    let log = tokio::task::block_in_place(|| past.log()).context("no log of it is kept")?;
    let reader = log.reader(from).await?;
    let Some(lines) = tail else { return copy(reader, AsyncOutput::new(), printer).await };
    let (writer, reading) = tokio::io::duplex(BUFFER);
    let (copied, shown) =
        tokio::join!(copy(reader, writer, printer), show_tail(BufReader::new(reading), lines));
    copied.and(shown)
}

async fn copy(
    mut reader: LogReader,
    mut output: impl AsyncWrite + Unpin,
    printer: Printer,
) -> Result<()> {
    while let Some(item) = reader.next().await? {
        match item {
            LogItem::Bytes(bytes) => output.write_all(&bytes).await?,
            LogItem::Missed(bytes) => {
                printer.note(&format!("the first {bytes} bytes are no longer kept"));
            }
            _ => {}
        }
    }
    Ok(output.flush().await?)
}
