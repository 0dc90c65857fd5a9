//! Any bytes are either the answer of a poll or an error. An answer survives a round trip.

use metaservice_protocol::{Action, PollAnswer};

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(data: &[u8]) {
    if let Ok(answer) = serde_json::from_slice::<PollAnswer>(data) {
        let json = serde_json::to_vec(&answer).unwrap();
        assert_eq!(serde_json::from_slice::<PollAnswer>(&json).unwrap(), answer);
        let (PollAnswer::Action(Action { id, .. })
        | PollAnswer::None { id }
        | PollAnswer::Unknown { id, .. }) = answer;
        assert!(!id.as_str().contains(['&', '#', '?', ' ', '\r', '\n']));
    }
}
