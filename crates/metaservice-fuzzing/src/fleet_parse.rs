//! What the crate reads of the network beside steps: requests, requirements, names, keys, sealed
//! secrets, chunks of logs, and errors of the server. The first byte selects which.

use std::collections::BTreeSet;
use std::path::Component;
use std::sync::LazyLock;

use bytes::Bytes;
use metaservice_fleet::fuzzing;
use metaservice_fleet::log::Chunk;
use metaservice_fleet::name::{self, JobId, Tenant, WorkerName};
use metaservice_fleet::request::{MAX_ATTEMPTS, MAX_REQUEST, Request};
use metaservice_fleet::requirement::{self, Features, Requirement};
use metaservice_fleet::sealed::{MAX_SECRETS, PublicKey, WorkerKey};
use metaservice_fleet::step::{Outcome, Step};
use metaservice_fleet::tenants::TenantLimits;
use serde_json::Value;

static KEY: LazyLock<WorkerKey> = LazyLock::new(WorkerKey::random);

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match (kind % 6, std::str::from_utf8(rest)) {
        (0, _) => request(rest),
        (1, Ok(text)) => texts(text),
        (2, _) => log(rest),
        (3, _) => step(rest),
        (4, _) => sealed(rest),
        (5, Ok(text)) => {
            let (error, subject) = text.split_once('\n').unwrap_or((text, "ms.log.a.1"));
            if fuzzing::is_denial(error, subject) {
                assert!(error.contains(subject));
            }
            let limits = TenantLimits::read(rest);
            let json = limits.map(|limits| serde_json::to_vec(&limits).expect("a form"));
            assert_eq!(json.as_deref().and_then(TenantLimits::read), limits);
        }
        _ => {}
    }
}

/// A request that passes its check has limits, and names no path of a host.
fn request(json: &[u8]) {
    let Ok(request) = serde_json::from_slice::<Request>(json) else { return };
    if request.check().is_err() {
        return;
    }
    assert!((1..=MAX_ATTEMPTS).contains(&request.attempts));
    let written = serde_json::to_vec(&request).expect("it was checked");
    assert!(written.len() <= MAX_REQUEST);
    let again: Request = serde_json::from_slice(&written).expect("it was written");
    assert!(again == request && again.is_same(&request));
    assert_eq!(serde_json::to_vec(&again).expect("it was checked"), written);
    let (spec, machine) = (&request.spec, &request.spec.machine);
    assert!(spec.copy_in.is_empty() && machine.volumes.is_empty() && machine.rootfs.is_none());
    assert!(machine.kernel.is_none() && machine.initrd.is_none() && spec.log.is_none());
    if let Some(image) = &machine.image {
        let parts: Vec<_> = image.components().collect();
        assert!(matches!(parts[..], [Component::Normal(_)]));
    }
    let features = Features { labels: BTreeSet::new(), memory: 1 << 30, processors: 2 };
    let _ = features.meet(&request.require);
    let id: JobId = "a".parse().expect("a name");
    let secrets = request.secrets(&id, Some(&KEY));
    assert!(request.sealed.is_none() || secrets.is_err(), "no one has the key");
}

fn texts(text: &str) {
    if let Ok(requirement) = text.parse::<Requirement>() {
        assert!(text.len() <= requirement::MAX);
        assert_eq!(requirement.to_string().parse(), Ok(requirement));
    }
    for known in [
        text.parse::<JobId>().map(String::from),
        text.parse::<Tenant>().map(String::from),
        text.parse::<WorkerName>().map(String::from),
    ] {
        let Ok(known) = known else { continue };
        assert!(known == text && known.len() <= name::MAX);
        assert!(!known.contains(['.', '*', '>', '/', ' ']));
    }
    if let Ok(key) = text.parse::<PublicKey>() {
        let again: PublicKey = key.to_string().parse().expect("it was written");
        assert_eq!(again.to_string(), key.to_string());
    }
}

/// A log: each message has its length before it. A reader gets each byte once, in order.
fn log(mut rest: &[u8]) {
    let mut offset = 0;
    while let Some((length, after)) = rest.split_first() {
        let (message, after) = after.split_at(after.len().min(usize::from(*length)));
        rest = after;
        let message = Bytes::copy_from_slice(message);
        let Some(chunk) = Chunk::decode(&message) else { continue };
        assert_eq!(chunk.encode(), message);
        if let Some(chunk) = fuzzing::unread(chunk, offset) {
            assert!(chunk.offset >= offset && !chunk.bytes.is_empty());
            offset = chunk.end();
        }
    }
}

/// A step is read as it was written.
fn step(json: &[u8]) {
    let Ok(step) = serde_json::from_slice::<Step>(json) else { return };
    let written = serde_json::to_vec(&step).expect("a form");
    let again: Step = serde_json::from_slice(&written).expect("it was written");
    assert_eq!(again, step);
    if let metaservice_fleet::step::Change::Ended(Outcome::Finished { artifacts, .. }) = step.change
    {
        assert!(artifacts.len() <= json.len());
    }
}

/// A box for this key is opened only as it was sealed.
fn sealed(change: &[u8]) {
    let id: JobId = "a".parse().expect("a name");
    let text = String::from_utf8_lossy(change).into_owned();
    let secrets = [("A".to_owned(), text)].into();
    let mut request: Request =
        serde_json::from_str(r#"{"spec": {"version": 1, "command": ["true"]}}"#)
            .expect("a request");
    let sealing = request.seal(&id, &secrets, &KEY.public());
    assert_eq!(
        sealing.is_ok(),
        secrets.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>() <= MAX_SECRETS
    );
    if sealing.is_err() {
        return;
    }
    assert_eq!(request.secrets(&id, Some(&KEY)).expect("it is the key"), secrets);
    let mut json = serde_json::to_value(&request).expect("a form");
    let Some(Value::String(content)) = json.pointer_mut("/sealed/box") else { return };
    let place = change.first().copied().map_or(0, usize::from) % content.len();
    let other = if content.as_bytes()[place] == b'A' { "B" } else { "A" };
    content.replace_range(place..=place, other);
    let other: Request = serde_json::from_value(json).expect("a request");
    assert!(other.secrets(&id, Some(&KEY)).is_err(), "a changed box was opened");
}
