//! The other JSON payloads: each decoded value survives a round trip.

use metaservice_protocol::{Ending, ErrorBody, Execute, Files, StreamFrom};

fn check<T>(data: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    if let Ok(value) = serde_json::from_slice::<T>(data) {
        let json = serde_json::to_vec(&value).unwrap();
        assert_eq!(serde_json::from_slice::<T>(&json).unwrap(), value);
    }
}

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(data: &[u8]) {
    check::<Execute>(data);
    check::<Files>(data);
    check::<ErrorBody>(data);
    check::<StreamFrom>(data);
    if let Some(ending) = std::str::from_utf8(data).ok().and_then(Ending::from_header) {
        let again = Ending::from_header(&ending.to_header());
        assert_eq!(again.as_ref(), Some(&ending));
        let _ = ending.shell_status();
    }
}
