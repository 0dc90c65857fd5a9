//! The job's log on its way to the service.
//!
//! Owns one stream from the command's output to log requests. The process that holds the
//! command's output sends it, so that what it has read and nobody has confirmed does not die with
//! an agent. A slow host blocks the command through its pipe; a few megabytes are kept at most.
//!
//! A service that refuses the log (500, or any 4xx) will refuse it again: the rest of the output
//! is read and dropped, so that the command is not blocked for ever by a log that nobody takes.
//! Its result is reported all the same.

mod numbered;
mod output;
mod plain;
mod post;

use metaservice_protocol::ActionId;
use metaservice_protocol::buffer::ResendBuffer;

use self::numbered::Numbered;
pub(crate) use self::output::Output;
pub use self::post::{PostLogError, post_log};
use crate::backoff::Backoff;
use crate::client::{Client, ClientError};
use crate::diagnostics::{chain, say};

const EARLY: &str = "the service ended the log request early";

/// Sends all of `output` as the log of this name, whatever it takes. Returns when the service has
/// confirmed it, or has refused it and the output has been dropped to its end.
pub(crate) async fn deliver(client: &Client, stream: ActionId, output: &mut Output) {
    let mut numbered = Numbered::new(client, stream, output);
    let mut interruption = Interruption::new();
    while numbered.pending().await {
        let before = numbered.confirmed();
        match numbered.send().await {
            Ok(true) => interruption.is_over(),
            Ok(false) => interruption.wait(false, EARLY).await,
            Err(error) if is_refusal(&error) => {
                say(&format!("the log is dropped from here on: {}", chain(&error)));
                return numbered.drop_rest().await;
            }
            Err(error) => interruption.wait(numbered.confirmed() > before, &chain(&error)).await,
        }
    }
}

/// As [`deliver`], to a service of version 1.
pub(crate) async fn deliver_plain(client: &Client, output: &mut Output) {
    let mut buffer = ResendBuffer::default();
    let mut interruption = Interruption::new();
    loop {
        let before = buffer.next();
        let error = match plain::send(client, output, &mut buffer).await {
            Ok(true) => return,
            Ok(false) => EARLY.to_owned(),
            Err(error) if is_refusal(&error) => {
                say(&format!("the log is dropped from here on: {}", chain(&error)));
                while output.read().await.is_some() {}
                return;
            }
            Err(error) => chain(&error),
        };
        interruption.wait(buffer.next() > before, &error).await;
    }
}

fn is_refusal(error: &ClientError) -> bool {
    error.status().is_some_and(|status| status == 500 || (400..500).contains(&status))
}

/// The time between two connections, and one word for many that fail.
struct Interruption {
    backoff: Backoff,
    said: bool,
}

impl Interruption {
    fn new() -> Self {
        Self { backoff: Backoff::new(), said: false }
    }

    fn is_over(&mut self) {
        self.backoff.reset();
        self.said = false;
    }

    async fn wait(&mut self, progress: bool, error: &str) {
        if progress {
            self.is_over();
        }
        if !std::mem::replace(&mut self.said, true) {
            say(&format!("the log is interrupted and will be continued: {error}"));
        }
        tokio::time::sleep(self.backoff.delay()).await;
    }
}
