//! read: a reply that is a transfer of a file or an archive.

use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use metaservice_protocol::transfer::Encoder;
use metaservice_protocol::{ActionId, Failure, FailureCode, ReadOptions};
use tokio::sync::Semaphore;

use super::compression::CompressionPolicy;
use super::source::{Block, Source};
use crate::client::body::{Body, BodySender, RequestOver};
use crate::client::error::ClientError;
use crate::client::{Client, ReplyBody};

/// How many reads run at once; one more fails. Each holds a blocking thread for as long as its host
/// reads.
const MAX_READS: usize = 16;

static READS: Semaphore = Semaphore::const_new(MAX_READS);

/// Serves a read action. Dropping the future cuts the reply and ends the reading.
pub(crate) async fn serve(
    client: &Client,
    id: &ActionId,
    path: PathBuf,
    options: ReadOptions,
) -> Result<(), ClientError> {
    let Ok(_permit) = READS.try_acquire() else {
        let failure = Failure::new(FailureCode::Other, "too many reads are in progress");
        return client.reply_failure(id, &failure).await;
    };
    let compress = options.compress;
    let opened = tokio::task::spawn_blocking(move || Source::open(&path, &options)).await;
    let opened =
        opened.unwrap_or_else(|_| Err(Failure::new(FailureCode::Other, "cannot open the file")));
    let source = match opened {
        Ok(source) => source,
        Err(failure) => return client.reply_failure(id, &failure).await,
    };
    let kind = ReplyBody::Transfer(source.head);
    let (sender, body) = Body::stream(None);
    let feeding = async {
        // Feeding ends early if the request is over. Then the request has the reason.
        let fed =
            tokio::task::spawn_blocking(move || feed(source, compress, &sender).map(|()| sender));
        if let Ok(Ok(sender)) = fed.await {
            let _ = sender.end().await;
        }
    };
    let (replied, ()) = tokio::join!(client.reply(id, kind, body), feeding);
    replied
}

fn feed(mut source: Source, compress: bool, sender: &BodySender) -> Result<(), RequestOver> {
    let mut encoder = Encoder::new();
    let mut policy = CompressionPolicy::new(compress);
    let last = loop {
        let begun = Instant::now();
        match source.next() {
            Ok(Some(Block { bytes, cursor })) => {
                let length = bytes.len();
                send(&mut encoder, policy.compress(), bytes, sender)?;
                policy.took(length, begun.elapsed());
                // After an omission there are no marks, so that a resumed read finds it again.
                let cursor = cursor.filter(|_| source.omission().is_none());
                if let Some(mark) = cursor.and_then(|cursor| encoder.mark(&cursor)) {
                    sender.send_blocking(mark)?;
                }
            }
            // An archive with an omission must not look complete.
            Ok(None) => match source.omission() {
                None => break encoder.end(),
                Some(failure) => break Encoder::failed(&failure),
            },
            Err(failure) => break Encoder::failed(&failure),
        }
    };
    sender.send_blocking(last)
}

fn send(
    encoder: &mut Encoder,
    compress: bool,
    bytes: Bytes,
    sender: &BodySender,
) -> Result<(), RequestOver> {
    if compress && let Some(block) = encoder.compressed(&bytes) {
        return sender.send_blocking(block);
    }
    sender.send_pair_blocking(encoder.data(bytes))
}
