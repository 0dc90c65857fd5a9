//! The log of a job that runs, or that has ended.

use anyhow::{Context, Result};
use metaservice::control::LogSegments;
use metaservice::{LogReader, LogSegment};

use crate::output::printer::Printer;

pub(super) enum Source {
    Running(LogSegments),
    Ended(LogReader, Printer),
}

impl Source {
    /// The next segment; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<LogSegment>> {
        match self {
            Self::Running(log) => log.next().await.context("the log is cut"),
            Self::Ended(log, printer) => {
                let segment = log.next_segment().await.context("the log cannot be read")?;
                if let Some(LogSegment { missed: bytes @ 1.., .. }) = &segment {
                    note_missed(*bytes, *printer);
                }
                Ok(segment)
            }
        }
    }
}

/// Says that the beginning is missing.
pub(super) fn note_missed(bytes: u64, printer: Printer) {
    printer.note(&format!("the first {bytes} bytes are no longer kept"));
}
