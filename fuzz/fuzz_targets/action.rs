//! Any bytes are either an action or refused. An action survives a round trip.

#![no_main]

use libfuzzer_sys::fuzz_target;
use metaservice_protocol::Action;

fuzz_target!(|data: &[u8]| {
    if let Ok(action) = serde_json::from_slice::<Action>(data) {
        let json = serde_json::to_vec(&action).unwrap();
        assert_eq!(serde_json::from_slice::<Action>(&json).unwrap(), action);
        assert!(!action.id.as_str().contains(['&', '#', '?', ' ', '\r', '\n']));
    }
});
