//! The job's log on its way to the service.
//!
//! Owns one stream from the command's output to one log request, or to several when
//! connections break. A chunk is read from the FIFO only when the connection has taken the
//! one before, so a slow host blocks the command through its pipe, and the agent holds a few
//! chunks at most.
//!
//! A service that refuses the log (500, or any 4xx) will refuse it again: that is said once,
//! and the rest of the output is read and dropped so that the command is not blocked for
//! ever by a log that nobody takes. Its result is reported all the same.

mod output;
mod post;

use std::pin::pin;
use std::sync::atomic::Ordering;

use metaservice_protocol::Outbox;

pub(crate) use self::output::Output;
pub use self::post::{PostLogError, post_log};
use crate::backoff::Backoff;
use crate::body::{Body, BodySender, RequestOver};
use crate::client::{Client, ClientError};
use crate::words::{chain, say};

/// Sends all of `output`, whatever it takes. Returns when the service has confirmed it, or
/// has refused it and the output has been dropped to its end.
pub(crate) async fn deliver(client: &Client, output: &mut Output) {
    let mut outbox = Outbox::default();
    let mut backoff = Backoff::new();
    let mut said = false;
    loop {
        let before = outbox.next();
        let error = match attempt(client, output, &mut outbox).await {
            Ok(true) => return,
            Ok(false) => "the service ended the log request early".to_owned(),
            Err(error) if is_refusal(&error) => {
                say(&format!("the log is dropped from here on: {}", chain(&error)));
                while output.read().await.is_some() {}
                return;
            }
            Err(error) => chain(&error),
        };
        if outbox.next() > before {
            backoff.reset();
            said = false;
        }
        if !std::mem::replace(&mut said, true) {
            say(&format!("the log is interrupted and will be continued: {error}"));
        }
        tokio::time::sleep(backoff.delay()).await;
    }
}

fn is_refusal(error: &ClientError) -> bool {
    error.status().is_some_and(|status| status == 500 || (400..500).contains(&status))
}

/// One log request. `true` when it carried everything to the end; else what the connection
/// has not taken is queued again.
async fn attempt(
    client: &Client,
    output: &mut Output,
    outbox: &mut Outbox,
) -> Result<bool, ClientError> {
    let base = outbox.next();
    let (sender, body) = Body::stream(None);
    let taken = sender.counter();
    let result = {
        let mut request = pin!(client.log(body));
        let mut feed = pin!(feed(&sender, base, output, outbox));
        let mut fed = None;
        loop {
            tokio::select! {
                biased;
                result = &mut request => break result.map(|()| fed == Some(Ok(()))),
                over = &mut feed, if fed.is_none() => fed = Some(over),
            }
        }
    };
    outbox.release(base + taken.load(Ordering::Relaxed));
    outbox.rewind();
    result
}

async fn feed(
    sender: &BodySender,
    base: u64,
    output: &mut Output,
    outbox: &mut Outbox,
) -> Result<(), RequestOver> {
    loop {
        outbox.release(base + sender.taken());
        let chunk = match outbox.take() {
            Some(chunk) => chunk,
            None => match output.read().await {
                Some(chunk) => {
                    outbox.push(chunk);
                    continue;
                }
                None => return sender.end().await,
            },
        };
        sender.send(chunk).await?;
    }
}
