//! Where the segments of a log are written.

use anyhow::Result;
use metaservice::{LogOutput, LogSegment};
use tokio::io::AsyncWriteExt;

use super::display::Display;
use crate::output::{AsyncOutput, AsyncStderr};

/// Standard output and standard error, with the segments of a log.
pub(crate) struct Outputs {
    stdout: AsyncOutput,
    stderr: AsyncStderr,
    /// The output that was written last.
    last: LogOutput,
    display: Display,
    text: Vec<u8>,
}

impl Outputs {
    pub(super) fn new(stdout: AsyncOutput, stderr: AsyncStderr, display: Display) -> Self {
        Self { stdout, stderr, last: LogOutput::Stdout, display, text: Vec::new() }
    }

    /// For a command that gets what the terminal sends if it `answers`.
    pub(crate) fn of_command(answers: bool) -> Self {
        let display = Display::new(false, false);
        Self::new(AsyncOutput::of_command(answers), AsyncStderr::of_command(), display)
    }

    pub(super) async fn write(&mut self, segment: &LogSegment) -> Result<()> {
        self.text.clear();
        let output = self.display.render(segment, &mut self.text);
        if output != self.last {
            // Both can be the same terminal or file.
            self.flush().await?;
            self.last = output;
        }
        match output {
            LogOutput::Stderr => self.stderr.write_all(&self.text).await?,
            LogOutput::Stdout => self.stdout.write_all(&self.text).await?,
        }
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<()> {
        match self.last {
            LogOutput::Stderr => self.stderr.flush().await?,
            LogOutput::Stdout => self.stdout.flush().await?,
        }
        Ok(())
    }
}
