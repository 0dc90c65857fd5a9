//! Any message is either decoded or refused. A decoded message encodes to the same bytes.

use bytes::Bytes;
use metaservice_protocol::shell::{Frame, StreamProtocol};

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(data: &[u8]) {
    let message = Bytes::copy_from_slice(data);
    for version in [StreamProtocol::V1, StreamProtocol::V2] {
        if let Ok(frame) = Frame::decode(&message, version) {
            let again = frame.encode();
            // Each non-zero exit status is decoded as failed and encoded as 1.
            assert!(again == message || matches!(frame, Frame::Exit { success: false, .. }));
            assert_eq!(Frame::decode(&again, version), Ok(frame));
        }
    }
}
