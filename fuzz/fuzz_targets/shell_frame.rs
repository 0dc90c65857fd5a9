//! Any message decodes or is refused, and what decodes encodes to the same message.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use metaservice_protocol::shell::{Dialect, Frame};

fuzz_target!(|data: &[u8]| {
    let message = Bytes::copy_from_slice(data);
    for dialect in [Dialect::V1, Dialect::V2] {
        if let Ok(frame) = Frame::decode(&message, dialect) {
            let again = frame.encode();
            // Every non-zero exit status reads as failed and is written as 1.
            assert!(again == message || matches!(frame, Frame::Exit { success: false, .. }));
            assert_eq!(Frame::decode(&again, dialect), Ok(frame));
        }
    }
});
