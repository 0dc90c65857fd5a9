//! Headers and lines of guests and hosts: each parsed value survives a round trip.

use std::fmt::Debug;

use metaservice_protocol::{
    AgentInfo, Detached, DirectoryEntry, Failure, FileHead, LogPlace, ServiceInfo, SessionGrant,
    Stats, StreamFrom,
};

fn same<T: PartialEq + Debug>(
    value: Option<T>,
    write: impl Fn(&T) -> String,
    read: impl Fn(&str) -> Option<T>,
) {
    if let Some(value) = value {
        let text = write(&value);
        assert!(text.is_ascii() && !text.bytes().any(|byte| byte.is_ascii_control()), "{text}");
        assert_eq!(read(&text), Some(value));
    }
}

fn line<T>(data: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug,
{
    if let Ok(value) = serde_json::from_slice::<T>(data) {
        let json = serde_json::to_vec(&value).expect("JSON");
        assert_eq!(serde_json::from_slice::<T>(&json).expect("JSON"), value);
    }
}

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(data: &[u8]) {
    line::<DirectoryEntry>(data);
    line::<Stats>(data);
    line::<Detached>(data);
    line::<StreamFrom>(data);
    line::<SessionGrant>(data);
    let failure = Failure::from_json(data);
    assert!(!failure.message.chars().any(char::is_control));
    let Ok(text) = std::str::from_utf8(data) else { return };
    same(AgentInfo::from_header(text), AgentInfo::to_header, AgentInfo::from_header);
    same(ServiceInfo::from_header(text), ServiceInfo::to_header, ServiceInfo::from_header);
    same(LogPlace::from_header(text), LogPlace::to_header, LogPlace::from_header);
    same(FileHead::from_header(text), FileHead::to_header, FileHead::from_header);
    let failure = Failure::from_header(text);
    assert_eq!(Failure::from_header(&failure.to_header()), failure);
}
