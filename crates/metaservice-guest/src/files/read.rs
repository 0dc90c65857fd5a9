//! read: a reply that is a transfer.

use std::time::Instant;

use bytes::Bytes;
use metaservice_protocol::transfer::Encoder;
use metaservice_protocol::{ActionId, Failure, FailureCode, Read};
use tokio::sync::Semaphore;

use super::compression::CompressionPolicy;
use super::source::{Block, Source};
use crate::agent::Service;
use crate::client::body::{Body, BodySender, RequestOver};
use crate::client::{ClientError, ReplyBody};

/// How many reads go on at once: each holds one of the runtime's blocking threads for as long as
/// its host reads. One more is refused.
const MAX_READS: usize = 16;

static READS: Semaphore = Semaphore::const_new(MAX_READS);

/// Answers a read action. Dropping the future cuts the reply and ends the reading.
pub(crate) async fn read(service: &Service, id: &ActionId, read: Read) -> Result<(), ClientError> {
    let Ok(_permit) = READS.try_acquire() else {
        let failure = Failure::new(FailureCode::Other, "too many reads are under way");
        return service.client.refuse(id, &failure).await;
    };
    let Read { path, options } = read;
    let path = service.path(&path);
    let compress = options.compress;
    let opened = tokio::task::spawn_blocking(move || Source::open(&path, &options)).await;
    let opened = opened
        .unwrap_or_else(|_| Err(Failure::new(FailureCode::Other, "the file cannot be looked at")));
    let source = match opened {
        Ok(source) => source,
        Err(failure) => return service.client.refuse(id, &failure).await,
    };
    let kind = ReplyBody::Transfer(source.head);
    let (sender, body) = Body::stream(None);
    let feeding = async {
        // The feeding ends early when the request is over, which has its own reason.
        let fed =
            tokio::task::spawn_blocking(move || feed(source, compress, &sender).map(|()| sender));
        if let Ok(Ok(sender)) = fed.await {
            let _ = sender.end().await;
        }
    };
    let (replied, ()) = tokio::join!(service.client.reply(id, kind, body), feeding);
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
                // Behind something that is missing there is no mark: who resumes comes by it again.
                let cursor = cursor.filter(|_| source.left_out().is_none());
                if let Some(mark) = cursor.and_then(|cursor| encoder.mark(&cursor)) {
                    sender.send_blocking(mark)?;
                }
            }
            // An archive that lacks something must not look complete.
            Ok(None) => match source.left_out() {
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
