//! Delivers the output of a job, over as many connections as it takes.

use metaservice_protocol::ActionId;
use metaservice_protocol::buffer::ResendBuffer;

use super::numbered::NumberedLog;
use super::output::Output;
use super::plain;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::client::error::ClientError;
use crate::diagnostics::{print, with_causes};

const EARLY_END: &str = "the service ended the log request early";

/// Delivers all of `output` as the numbered log streams of these names, for stdout and stderr.
///
/// Returns when the service has confirmed it, or has rejected it and the output was discarded to
/// its end.
pub(crate) async fn deliver(client: &Client, streams: [ActionId; 2], output: &mut Output) {
    let mut log = NumberedLog::new(client, streams, output);
    let mut retries = Retries::new();
    while log.has_pending().await {
        let before = log.confirmed();
        match log.send().await {
            Ok(true) => retries.succeeded(),
            Ok(false) => retries.wait(false, EARLY_END).await,
            Err(error) if is_rejection(&error) => {
                print(&format!("the rest of the log is discarded: {}", with_causes(&error)));
                return log.discard_rest().await;
            }
            Err(error) => retries.wait(log.confirmed() > before, &with_causes(&error)).await,
        }
    }
}

/// As [`deliver`], to a service of version 1.
pub(crate) async fn deliver_plain(client: &Client, output: &mut Output) {
    let mut buffer = ResendBuffer::default();
    let mut retries = Retries::new();
    loop {
        let before = buffer.next();
        let error = match plain::send(client, output, &mut buffer).await {
            Ok(true) => return,
            Ok(false) => EARLY_END.to_owned(),
            Err(error) if is_rejection(&error) => {
                print(&format!("the rest of the log is discarded: {}", with_causes(&error)));
                while output.read().await.is_some() {}
                return;
            }
            Err(error) => with_causes(&error),
        };
        retries.wait(buffer.next() > before, &error).await;
    }
}

fn is_rejection(error: &ClientError) -> bool {
    error.status().is_some_and(|status| status == 500 || (400..500).contains(&status))
}

/// The delay between two connections, and one message for many that fail.
struct Retries {
    backoff: Backoff,
    printed: bool,
}

impl Retries {
    fn new() -> Self {
        Self { backoff: Backoff::new(), printed: false }
    }

    fn succeeded(&mut self) {
        self.backoff.reset();
        self.printed = false;
    }

    async fn wait(&mut self, progress: bool, error: &str) {
        if progress {
            self.succeeded();
        }
        if !std::mem::replace(&mut self.printed, true) {
            print(&format!("the log is interrupted and will be continued: {error}"));
        }
        tokio::time::sleep(self.backoff.delay()).await;
    }
}
