//! A decoder accepts any bytes in any pieces, and its blocks have a maximum size. The result does
//! not depend on the pieces.

use bytes::Bytes;
use metaservice_protocol::limits::TRANSFER_BLOCK;
use metaservice_protocol::transfer::{Decoder, Item};

fn decode(pieces: impl Iterator<Item = Bytes>) -> (Vec<u8>, bool) {
    let mut decoder = Decoder::new();
    let mut content = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(Item::Data(data))) => {
                    assert!((1..=TRANSFER_BLOCK).contains(&data.len()));
                    content.extend_from_slice(&data);
                }
                Ok(Some(Item::End)) => return (content, true),
                Ok(Some(Item::Failed(_)) | None) => break,
                Err(_) => return (content, false),
            }
        }
    }
    (content, false)
}

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let whole = Bytes::copy_from_slice(rest);
    let size = usize::from(first) + 1;
    let pieces = (0..rest.len()).step_by(size).map(|n| whole.slice(n..rest.len().min(n + size)));
    assert_eq!(decode(pieces), decode(std::iter::once(whole.clone())));
}
