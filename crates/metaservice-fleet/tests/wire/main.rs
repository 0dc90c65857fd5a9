//! What workers and clients write: it stays as it is, and later forms do no harm.
#![allow(clippy::unwrap_used)]

mod broken;
mod samples;
#[path = "../servers/mod.rs"]
mod servers;
mod skew;

use std::path::PathBuf;

use bytes::Bytes;
use metaservice_fleet::log::Chunk;
use metaservice_fleet::request::VERSION;
use metaservice_fleet::sealed::WorkerKey;
use metaservice_fleet::step::{Change, Outcome, Renewal, Step, WorkerState};
use metaservice_fleet::tenants::TenantLimits;
use metaservice_fleet::tunnel::frame::Frame;
use serde_json::{Value, json};

use samples::{chunks, frames, hex, limits, renewals, steps};

fn place(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire").join(name)
}

/// The text of a sample. `METASERVICE_WIRE=write` writes one that is missing, and changes none.
fn sample(name: &str, written: &str) -> String {
    let path = place(name);
    if !path.exists() && std::env::var("METASERVICE_WIRE").is_ok_and(|word| word == "write") {
        std::fs::write(&path, format!("{written}\n")).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    text.trim_end().to_owned()
}

fn json_of(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

/// Versions before this one wrote these too, and those after it still read them.
#[test]
fn each_form_is_written_and_read_as_its_sample() {
    for (name, step) in steps() {
        let sample = sample(&format!("step-{name}.json"), &json_of(&step));
        assert_eq!(json_of(&step), sample, "{name}");
        assert_eq!(serde_json::from_str::<Step>(&sample).unwrap(), step, "{name}");
        if let Change::Submitted(request) = step.change {
            assert_eq!(request.check(), Ok(()), "{name}");
        }
    }
    for (name, renewal) in renewals() {
        let sample = sample(&format!("renewal-{name}.json"), &json_of(&renewal));
        assert_eq!(json_of(&renewal), sample, "{name}");
        assert_eq!(serde_json::from_str::<Renewal>(&sample).unwrap(), renewal, "{name}");
    }
    for (name, limits) in limits() {
        let sample = sample(&format!("limits-{name}.json"), &json_of(&limits));
        assert_eq!(json_of(&limits), sample, "{name}");
        assert_eq!(TenantLimits::read(sample.as_bytes()), Some(limits), "{name}");
    }
}

#[test]
fn chunks_and_frames_are_written_and_read_as_their_samples() {
    let lines = |texts: Vec<(&str, Bytes)>| -> String {
        let lines = texts.iter().map(|(name, bytes)| format!("{name} {}", hex(bytes)));
        lines.collect::<Vec<_>>().join("\n")
    };
    let written = chunks().into_iter().map(|(name, chunk)| (name, chunk.encode()));
    let written = lines(written.collect());
    assert_eq!(written, sample("chunks.txt", &written));
    for (name, chunk) in chunks() {
        assert_eq!(Chunk::decode(&chunk.encode()), Some(chunk), "{name}");
    }
    let written = frames().into_iter().map(|(name, frame)| (name, frame.encode(258)));
    let written = lines(written.collect());
    assert_eq!(written, sample("frames.txt", &written));
    for (name, frame) in frames() {
        assert_eq!(Frame::decode(&frame.encode(258)), Ok((258, frame)), "{name}");
    }
}

/// Later versions of a worker open what this one sealed: the digest is that of the request's JSON.
#[test]
fn secrets_that_this_version_sealed_are_opened() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    std::fs::copy(place("worker-key.txt"), &file).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mode).unwrap();
    let key = WorkerKey::of_file(&file).unwrap();
    let json = std::fs::read_to_string(place("step-submitted-sealed.json")).unwrap();
    let step: Step = serde_json::from_str(&json).unwrap();
    assert_eq!(json_of(&step), json.trim_end());
    let Change::Submitted(request) = step.change else { panic!("a submission") };
    let secrets = request.secrets(&"job-1".parse().unwrap(), Some(&key)).unwrap();
    assert_eq!(secrets, [("TOKEN".to_owned(), "hunter2".to_owned())].into());
}

/// The pointers of all objects in a value.
fn objects(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                objects(member, format!("{at}/{name}"), all);
            }
            all.push(at);
        }
        Value::Array(members) => {
            for (number, member) in members.iter().enumerate() {
                objects(member, format!("{at}/{number}"), all);
            }
        }
        _ => {}
    }
}

/// The value with one more field in each of its objects, one at a time.
fn with_later_fields(json: &str) -> Vec<(String, Value)> {
    let value: Value = serde_json::from_str(json).unwrap();
    let mut pointers = Vec::new();
    objects(&value, String::new(), &mut pointers);
    let with = |pointer: String| {
        let mut value = value.clone();
        let object = value.pointer_mut(&pointer).unwrap().as_object_mut().unwrap();
        object.insert("later".to_owned(), json!({ "more": [1] }));
        (pointer, value)
    };
    pointers.into_iter().map(with).collect()
}

#[test]
fn a_field_of_a_later_version_is_ignored_except_in_a_request() {
    // A name of a kind has its content as the one field.
    let kinds = ["/change", "/change/ended", "/change/ended/exception/cause"];
    for (name, step) in steps() {
        for (pointer, value) in with_later_fields(&json_of(&step)) {
            let read = serde_json::from_value::<Step>(value).ok();
            if pointer.starts_with("/change/submitted") {
                assert_ne!(read, Some(step.clone()), "{name} ignores a field at {pointer}");
            } else if !kinds.contains(&pointer.as_str()) {
                assert_eq!(read, Some(step.clone()), "{name} at {pointer}");
            }
        }
    }
    for (name, renewal) in renewals() {
        for (pointer, value) in with_later_fields(&json_of(&renewal)) {
            let read = serde_json::from_value::<Renewal>(value).ok();
            assert_eq!(read, Some(renewal.clone()), "{name} at {pointer}");
        }
    }
    for (name, limits) in limits() {
        for (pointer, value) in with_later_fields(&json_of(&limits)) {
            let read = TenantLimits::read(value.to_string().as_bytes());
            assert_eq!(read, Some(limits), "{name} at {pointer}");
        }
    }
}

fn change(change: &Value) -> Option<Change> {
    let step = json!({ "version": VERSION, "nonce": "0123456789ab", "change": change });
    serde_json::from_value::<Step>(step).ok().map(|step| step.change)
}

#[test]
fn a_later_kind_of_change_cannot_be_read_and_a_later_outcome_is_one() {
    for later in [
        json!("suspended"),
        json!({ "suspended": { "worker": "w" } }),
        json!({ "lost": { "cause": "flood", "message": "m" } }),
        json!({ "claimed": { "worker": "w", "run": ["r"] } }),
    ] {
        assert_eq!(change(&later), None, "{later}");
    }
    for later in [
        json!("exploded"),
        json!({ "exploded": { "at": 1 } }),
        json!({ "exception": { "cause": "flood", "message": "m" } }),
        json!({ "finished": { "status": 1000, "log": 0 } }),
    ] {
        let ended = Some(Change::Ended(Outcome::Unknown));
        assert_eq!(change(&json!({ "ended": later.clone() })), ended, "{later}");
    }
    assert_eq!(change(&json!({ "ended": "cancelled" })), Some(Change::Ended(Outcome::Cancelled)));
}

#[test]
fn a_worker_in_a_later_state_has_its_lease() {
    let (_, renewal) = renewals().remove(0);
    let mut value = serde_json::to_value(&renewal).unwrap();
    value["state"] = json!("paused");
    let read: Renewal = serde_json::from_value(value).unwrap();
    assert_eq!(read, Renewal { state: WorkerState::Unknown, ..renewal });
}
