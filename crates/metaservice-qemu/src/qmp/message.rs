//! One line from QEMU's monitor.
//!
//! Owns the decoding. It never fails: newer versions of QEMU may send messages that older ones did
//! not, and these become [`Message::Other`].

use serde_json::Value;

/// A message that QEMU sends without a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// The name, such as `SHUTDOWN`.
    pub(crate) name: String,
    /// The data. `null` if there are none.
    pub(crate) data: Value,
}

impl Event {
    /// A text in the data.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.data.get(key)?.as_str()
    }

    /// A flag in the data. A missing one is false.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.data.get(key).and_then(serde_json::Value::as_bool).unwrap_or_default()
    }
}

#[derive(Debug, PartialEq)]
pub(super) enum Message {
    Answer {
        id: u64,
        answer: Result<Value, String>,
    },
    Event(Event),
    /// The greeting, or an unknown message.
    Other,
}

impl Message {
    pub(super) fn decode(line: &[u8]) -> Self {
        let Ok(Value::Object(mut object)) = serde_json::from_slice(line) else {
            return Self::Other;
        };
        if let Some(Value::String(name)) = object.remove("event") {
            return Self::Event(Event { name, data: object.remove("data").unwrap_or_default() });
        }
        let Some(id) = object.get("id").and_then(Value::as_u64) else { return Self::Other };
        if let Some(value) = object.remove("return") {
            return Self::Answer { id, answer: Ok(value) };
        }
        match object.remove("error") {
            Some(error) => {
                let description =
                    error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                Self::Answer { id, answer: Err(description.to_owned()) }
            }
            None => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind() {
        let event = br#"{"timestamp": {"seconds": 1}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;
        let Message::Event(event) = Message::decode(event) else { panic!("no event") };
        assert_eq!((event.name.as_str(), event.text("reason")), ("SHUTDOWN", Some("guest-reset")));
        assert_eq!(event.text("guest"), None);
        assert_eq!(
            Message::decode(br#"{"return": {"status": "running"}, "id": 7}"#),
            Message::Answer { id: 7, answer: Ok(json!({"status": "running"})) }
        );
        assert_eq!(
            Message::decode(br#"{"id": 8, "error": {"class": "GenericError", "desc": "no"}}"#),
            Message::Answer { id: 8, answer: Err("no".into()) }
        );
        for other in [
            &br#"{"QMP": {}}"#[..],
            b"",
            b"[]",
            b"{\"return\": {}}",
            b"{\"id\": -1, \"return\": 1}",
            b"\xff",
        ] {
            assert_eq!(Message::decode(other), Message::Other);
        }
    }

    #[test]
    fn an_error_without_a_reason_is_an_error_still() {
        let Message::Answer { answer, .. } = Message::decode(br#"{"id": 8, "error": 3}"#) else {
            panic!()
        };
        assert_eq!(answer, Err("no reason given".into()));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn half_right_lines_never_panic(key in "event|return|error|id|data", value in "[0-9\"{}\\[\\]:,a-z ]{0,30}") {
            let _ = Message::decode(format!("{{\"id\": 1, \"{key}\": {value}}}").as_bytes());
        }
    }
}
