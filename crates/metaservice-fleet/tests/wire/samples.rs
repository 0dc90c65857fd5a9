//! A value of each form that workers and clients write.

use bytes::Bytes;
use metaservice_fleet::log::{Chunk, Stream};
use metaservice_fleet::request::{Priority, Request, VERSION};
use metaservice_fleet::step::{
    Artifact, Capacity, Change, Digest, ExceptionCause, LostCause, Object, Outcome, Renewal, Step,
    WorkerState,
};
use metaservice_fleet::tenants::TenantLimits;
use metaservice_fleet::tunnel::frame::{Frame, Reason};
use metaservice_sandbox::spec::JobSpec;
use serde_json::json;

/// A value of each kind that has no content. A kind that is added must be added here too.
macro_rules! each {
    ($type:ident { $($kind:ident = $name:literal),* }) => {{
        let _ = |value: $type| match value { $($type::$kind => {})* };
        [$(($name, $type::$kind)),*]
    }};
}

fn step(change: Change) -> Step {
    Step { version: VERSION, nonce: "0123456789ab".parse().unwrap(), change }
}

fn submitted(request: Request) -> Change {
    Change::Submitted(Box::new(request))
}

/// A job that uses all that a job of a queue can have.
fn full() -> Request {
    let spec = json!({
        "version": 1,
        "name": "build",
        "command": ["make", "test"],
        "env": { "A": "1" },
        "workdir": "/work",
        "user": "1000:1000",
        "hostname": "builder",
        "timeout": "10m",
        "artifacts": [{ "path": "/work/out" }],
        "limits": { "connections": "10" },
        "machine": { "image": "debian", "cpus": 2, "memory": "2G" },
    });
    let spec: JobSpec = serde_json::from_value(spec).unwrap();
    let mut request = Request::new(spec);
    request.tenant = "team".parse().unwrap();
    (request.priority, request.attempts) = (Priority::High, 3);
    (request.not_before, request.deadline) = (Some(1_800_000_000_000), Some(1_900_000_000_000));
    request.require = ["kvm", "mem=2G", "cpus=2"].map(str::to_owned).into();
    request
}

fn object(name: &str, store: Option<&str>) -> Object {
    let digest = Digest("0123456789abcdef".repeat(4));
    Object { name: name.into(), bytes: 7, digest, store: store.map(str::to_owned) }
}

fn outcomes() -> Vec<(&'static str, Outcome)> {
    let plain = Outcome::Finished { status: 0, log: 0, log_object: None, artifacts: Vec::new() };
    let artifacts = vec![
        Artifact {
            path: "/work/out".into(),
            object: Some(object("job-1.1.0", None)),
            is_directory: true,
            error: None,
        },
        Artifact {
            path: "/missing".into(),
            object: None,
            is_directory: false,
            error: Some("it was not fetched".into()),
        },
    ];
    let log_object = Some(object("job-1.1.log", Some("file:///srv/jobs")));
    let finished = Outcome::Finished { status: 3, log: 11, log_object, artifacts };
    let lost = ExceptionCause::Lost(LostCause::Machine);
    vec![
        ("finished", finished),
        ("finished-plain", plain),
        ("cancelled", Outcome::Cancelled),
        (
            "artifacts",
            Outcome::Exception { cause: ExceptionCause::Artifacts, message: "too many".into() },
        ),
        ("lost", Outcome::Exception { cause: lost, message: "no kernel".into() }),
        (
            "deadline",
            Outcome::Exception { cause: ExceptionCause::Deadline, message: String::new() },
        ),
    ]
}

/// The steps of jobs.
pub(crate) fn steps() -> Vec<(String, Step)> {
    let mut all = vec![
        ("submitted".to_owned(), submitted(Request::new(JobSpec::new(["true"])))),
        ("submitted-full".to_owned(), submitted(full())),
    ];
    for (name, priority) in each!(Priority { Low = "low", Normal = "normal", High = "high" }) {
        let mut request = Request::new(JobSpec::new(["true"]));
        request.priority = priority;
        all.push((format!("submitted-{name}"), submitted(request)));
    }
    let (worker, run) = ("worker-1".parse().unwrap(), "abcdef012345".parse().unwrap());
    all.push(("claimed".to_owned(), Change::Claimed { worker, run }));
    for (name, cause) in each!(LostCause {
        Lease = "lease",
        Released = "released",
        Machine = "machine",
        Output = "output",
        Refused = "refused"
    }) {
        let message = if cause == LostCause::Lease { "" } else { "a word" }.to_owned();
        all.push((format!("lost-{name}"), Change::Lost { cause, message }));
    }
    for (name, outcome) in outcomes() {
        all.push((format!("ended-{name}"), Change::Ended(outcome)));
    }
    all.push(("cancelled".to_owned(), Change::Cancelled));
    all.push(("expired".to_owned(), Change::Expired));
    all.into_iter().map(|(name, change)| (name, step(change))).collect()
}

/// What workers say of themselves.
pub(crate) fn renewals() -> Vec<(&'static str, Renewal)> {
    let states = each!(WorkerState {
        Ready = "ready",
        Draining = "draining",
        Gone = "gone",
        Unknown = "unknown"
    });
    let written = states.into_iter().filter(|(_, state)| *state != WorkerState::Unknown);
    let renewal = |(name, state)| {
        let renewal = Renewal {
            worker: "worker-1".parse().unwrap(),
            run: "abcdef012345".parse().unwrap(),
            slots: 4,
            running: 3,
            warm: 2,
            state,
            labels: ["arch=x86_64", "kvm"].map(str::to_owned).into(),
            version: "1.2.3".into(),
            reason: (state == WorkerState::Ready).then(|| "memory".to_owned()),
            capacity: None,
        };
        (name, renewal)
    };
    let mut all: Vec<_> = written.map(renewal).collect();
    let capacity = Capacity { memory: 3 << 30, host_memory: 4 << 30, processors: 2 };
    let (_, ready) = renewal(("ready", WorkerState::Ready));
    all.push(("capacity", Renewal { capacity: Some(capacity), ..ready }));
    all
}

/// The limits of tenants.
pub(crate) fn limits() -> Vec<(&'static str, TenantLimits)> {
    vec![
        ("none", TenantLimits::default()),
        ("both", TenantLimits { running: Some(8), waiting: Some(0) }),
    ]
}

/// Chunks of logs.
pub(crate) fn chunks() -> Vec<(&'static str, Chunk)> {
    let chunk = |offset, stream, bytes: &'static [u8]| Chunk {
        offset,
        stream,
        bytes: Bytes::from_static(bytes),
    };
    vec![
        ("stdout", chunk(0, Stream::Stdout, b"out\n")),
        ("stderr", chunk(1 << 32, Stream::Stderr, b"err\n")),
    ]
}

/// The messages of connections to a job.
pub(crate) fn frames() -> Vec<(&'static str, Frame)> {
    vec![
        ("open", Frame::Open),
        ("opened", Frame::Opened),
        ("data", Frame::Data(Bytes::from_static(b"data"))),
        ("credit", Frame::Credit(65_536)),
        ("finish", Frame::Finish),
        ("ping", Frame::Ping),
        ("reset-ended", Frame::Reset(Reason::Ended)),
        ("reset-too-many", Frame::Reset(Reason::TooMany)),
        ("reset-cannot-connect", Frame::Reset(Reason::CannotConnect)),
        ("reset-lost", Frame::Reset(Reason::Lost)),
        ("reset-broken", Frame::Reset(Reason::Broken)),
        ("reset-silent", Frame::Reset(Reason::Silent)),
        ("reset-closed", Frame::Reset(Reason::Closed)),
        ("reset-version", Frame::Reset(Reason::Version)),
    ]
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    metaservice_private::hex(bytes)
}
