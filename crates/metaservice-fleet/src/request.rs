//! What a client asks for: a description of a job, and how the queue treats it.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use metaservice_sandbox::job::{Field, InvalidJob, Job};
use metaservice_sandbox::spec::JobSpec;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::name::{JobId, Tenant};
use crate::requirement::{InvalidRequirement, MOST, Requirement};
use crate::sealed::{Owner, PublicKey, SealError, Sealed, Secrets, WorkerKey};

/// The version of requests and steps.
pub const VERSION: u32 = 1;

/// The attempts of a request that names no number.
pub const ATTEMPTS: u32 = 2;

/// The most attempts that a request can have.
pub const MAX_ATTEMPTS: u32 = 100;

/// The longest request as JSON, in bytes. A message of NATS has at most 1 MiB.
pub const MAX_REQUEST: usize = 512 * 1024;

/// The JSON Schema of a request.
#[cfg(feature = "schema")]
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Request).into()
}

/// The class of a job. Within one tenant, jobs of a higher class are first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// After all others.
    Low,
    /// The usual class.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// A job as a client submits it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Request {
    /// The description: what the guest runs, and in what machine.
    pub spec: JobSpec,
    /// Whose job it is.
    #[serde(default)]
    pub tenant: Tenant,
    /// Its class.
    #[serde(default)]
    pub priority: Priority,
    /// How often it is tried: an attempt that failed by no fault of the command is repeated.
    #[serde(default = "attempts")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_ATTEMPTS)))]
    pub attempts: u32,
    /// It does not start before: milliseconds since 1970, of the server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// It does not start after: milliseconds since 1970, of the server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// What its worker must have: labels, `mem=8G`, `cpus=4`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub require: BTreeSet<String>,
    /// Its secrets, which only a worker with the key can read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
}

const fn attempts() -> u32 {
    ATTEMPTS
}

/// Why a request cannot run on a worker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// It has no command.
    #[error("the job has no command")]
    NoCommand,
    /// The number of attempts is zero or too large.
    #[error("attempts are 1 to {MAX_ATTEMPTS}, not {0}")]
    Attempts(u32),
    /// It names a path of a host. A worker uses none.
    #[error("a worker uses no path of a host: {0}")]
    HostPath(&'static str),
    /// It needs a value that only the client has.
    #[error("the queue carries no {0}")]
    Client(&'static str),
    /// Its sealed secrets are too long.
    #[error("the sealed secrets of the job are too long")]
    Sealed,
    /// It requires something that is no [requirement](Requirement).
    #[error(transparent)]
    Requirement(#[from] InvalidRequirement),
    /// It requires too much.
    #[error("a job has at most {MOST} requirements, not {0}")]
    Requirements(usize),
    /// A limit or a time of the description is more than a host can bear.
    #[error("in {field}: {reason}")]
    Limit {
        /// Which one.
        field: Field,
        /// What is wrong with it.
        reason: String,
    },
    /// It is too long.
    #[error("the job has {0} bytes of JSON, more than {MAX_REQUEST}")]
    Size(usize),
}

impl Request {
    /// A request with the usual treatment.
    #[must_use]
    pub fn new(spec: JobSpec) -> Self {
        Self {
            spec,
            tenant: Tenant::default(),
            priority: Priority::default(),
            attempts: ATTEMPTS,
            not_before: None,
            deadline: None,
            require: BTreeSet::new(),
            sealed: None,
        }
    }

    /// Whether a worker can run this. Both the client and the worker check it: the worker trusts no
    /// path and no name that it did not choose.
    ///
    /// # Errors
    /// The first thing that no worker runs.
    pub fn check(&self) -> Result<(), InvalidRequest> {
        if self.require.len() > MOST {
            return Err(InvalidRequest::Requirements(self.require.len()));
        }
        self.check_form()?;
        self.check_limits()
    }

    /// What it requires, as it was read once. A worker looks at it each time that it looks for a
    /// job. More than a job may have is nothing: any worker takes the job, to say so.
    pub(crate) fn requirements(&self) -> Vec<Requirement> {
        if self.require.len() > MOST {
            return Vec::new();
        }
        self.require.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// Whether the limits and times are such that they harm no worker.
    fn check_limits(&self) -> Result<(), InvalidRequest> {
        Job::check_limits(&self.spec).map_err(|error| match error {
            InvalidJob::Field { field, cause } => {
                InvalidRequest::Limit { field, reason: cause.to_string() }
            }
            _ => InvalidRequest::Client("such limits"),
        })
    }

    /// Whether this is a job of the queue. All versions must agree on it: a reader that knows a job
    /// less counts and judges otherwise than the others. So what a later version refuses is not
    /// here, but in [`check`](Self::check): its worker takes the job and says why it does not run.
    pub(crate) fn check_form(&self) -> Result<(), InvalidRequest> {
        let spec = &self.spec;
        if spec.command.is_empty() && spec.entrypoint.is_none() {
            return Err(InvalidRequest::NoCommand);
        }
        if !(1..=MAX_ATTEMPTS).contains(&self.attempts) {
            return Err(InvalidRequest::Attempts(self.attempts));
        }
        for text in &self.require {
            text.parse::<Requirement>()?;
        }
        if let Some(path) = self.host_path() {
            return Err(InvalidRequest::HostPath(path));
        }
        if let Some(need) = self.client_need() {
            return Err(InvalidRequest::Client(need));
        }
        if self.allowed() != self.spec {
            return Err(InvalidRequest::Client("other setting of the client's host"));
        }
        if self.sealed.as_ref().is_some_and(|sealed| !sealed.is_bounded()) {
            return Err(InvalidRequest::Sealed);
        }
        match serde_json::to_vec(self).map(|json| json.len()) {
            Ok(length) if length <= MAX_REQUEST => Ok(()),
            Ok(length) => Err(InvalidRequest::Size(length)),
            Err(_) => Err(InvalidRequest::HostPath("one that is no text")),
        }
    }

    /// Seals secrets for the workers with this key. They belong to the job and the request: it must
    /// not change after this.
    ///
    /// # Errors
    /// When they are too long.
    pub fn seal(
        &mut self,
        id: &JobId,
        secrets: &Secrets,
        key: &PublicKey,
    ) -> Result<(), SealError> {
        self.sealed = Some(Sealed::new(secrets, key, self.owner(id)?)?);
        Ok(())
    }

    /// Opens the secrets of the job with the key of a worker. A job without secrets needs no key.
    ///
    /// # Errors
    /// When there is no key or another one, or they are another job's or another request's.
    pub fn secrets(&self, id: &JobId, key: Option<&WorkerKey>) -> Result<Secrets, SealError> {
        match &self.sealed {
            Some(sealed) => sealed.open(key, &self.owner(id)?),
            None => Ok(Secrets::new()),
        }
    }

    fn owner(&self, id: &JobId) -> Result<Owner, SealError> {
        let request = Self { sealed: None, ..self.clone() };
        let json = serde_json::to_vec(&request).map_err(SealError::Form)?;
        let request = metaservice_private::hex(&Sha256::digest(json));
        Ok(Owner { job: id.clone(), request })
    }

    /// Whether it asks for the same as this one. Two boxes of the same secrets differ: those for the
    /// same key count as the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let key = |request: &Self| request.sealed.as_ref().map(|sealed| sealed.to.clone());
        key(self) == key(other) && Self { sealed: other.sealed.clone(), ..self.clone() } == *other
    }

    /// The description with only what a job may say to a worker. A field that is added to
    /// descriptions later is not in it.
    fn allowed(&self) -> JobSpec {
        let spec = self.spec.clone();
        let mut allowed = JobSpec::new(spec.command);
        (allowed.version, allowed.name, allowed.env) = (spec.version, spec.name, spec.env);
        (allowed.workdir, allowed.user, allowed.hostname) =
            (spec.workdir, spec.user, spec.hostname);
        (allowed.entrypoint, allowed.stderr) = (spec.entrypoint, spec.stderr);
        (allowed.session, allowed.timeout) = (spec.session, spec.timeout);
        (allowed.artifacts, allowed.artifacts_on) = (spec.artifacts, spec.artifacts_on);
        (allowed.max_log, allowed.max_artifact) = (spec.max_log, spec.max_artifact);
        (allowed.limits, allowed.cloud) = (spec.limits, spec.cloud);
        let (from, to) = (spec.machine, &mut allowed.machine);
        (to.image, to.cpus, to.memory) = (from.image, from.cpus, from.memory);
        (to.accel, to.network, to.boot_timeout) = (from.accel, from.network, from.boot_timeout);
        (to.snapshot, to.kaslr) = (from.snapshot, from.kaslr);
        allowed
    }

    fn host_path(&self) -> Option<&'static str> {
        let (spec, machine) = (&self.spec, &self.spec.machine);
        let is_path = |image: &Path| {
            let mut parts = image.components();
            !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        };
        let network = &machine.network;
        [
            ("copyIn", !spec.copy_in.is_empty()),
            ("log", spec.log.is_some()),
            ("cloud.userData", spec.cloud.user_data.is_some()),
            ("machine.rootfs", machine.rootfs.is_some()),
            ("machine.show", !machine.show.is_empty()),
            ("machine.hide", !machine.hide.is_empty()),
            ("machine.volumes", !machine.volumes.is_empty()),
            ("machine.kernel", machine.kernel.is_some()),
            ("machine.initrd", machine.initrd.is_some()),
            ("machine.pcap", machine.pcap.is_some()),
            ("machine.console", machine.console.is_some()),
            ("machine.image", machine.image.as_deref().is_some_and(is_path)),
            ("machine.network.log", network.log.is_some()),
            ("machine.network.policy", network.policy.is_some()),
        ]
        .into_iter()
        .find_map(|(name, is_set)| is_set.then_some(name))
    }

    fn client_need(&self) -> Option<&'static str> {
        let spec = &self.spec;
        [
            ("secrets", !spec.secrets.is_empty()),
            ("standard input", spec.stdin),
            ("terminal", spec.terminal.is_some()),
            ("kept machine", spec.keep_on_failure.is_some()),
            ("published port", !spec.machine.network.publish.is_empty()),
        ]
        .into_iter()
        .find_map(|(name, is_set)| is_set.then_some(name))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use metaservice_sandbox::spec::{CopyInSpec, VolumeSpec};

    use super::*;

    fn checked(change: impl FnOnce(&mut Request)) -> Result<(), InvalidRequest> {
        let mut request = Request::new(JobSpec::new(["true"]));
        change(&mut request);
        request.check()
    }

    #[test]
    fn a_plain_command_is_valid() {
        assert_eq!(checked(|_| {}), Ok(()));
        assert_eq!(checked(|request| request.spec.machine.image = Some("debian".into())), Ok(()));
        assert_eq!(checked(|request| request.spec.name = Some("a".into())), Ok(()));
    }

    #[test]
    fn a_request_names_no_path_of_a_host() {
        let wrong = |change: fn(&mut Request)| {
            assert!(matches!(checked(change), Err(InvalidRequest::HostPath(_))));
        };
        wrong(|request| {
            request.spec.copy_in.push(CopyInSpec { from: "/etc/passwd".into(), to: None });
        });
        wrong(|request| request.spec.log = Some("x".into()));
        wrong(|request| request.spec.machine.rootfs = Some("/".into()));
        wrong(|request| request.spec.machine.kernel = Some("/k".into()));
        wrong(|request| request.spec.machine.pcap = Some("p".into()));
        wrong(|request| request.spec.machine.network.log = Some("l".into()));
        wrong(|request| request.spec.machine.network.policy = Some("p".into()));
        for image in ["/etc/passwd", "../x", "a/b", "./a", ".."] {
            let checked = checked(|request| {
                request.spec.machine.image = Some(PathBuf::from(image));
            });
            assert!(matches!(checked, Err(InvalidRequest::HostPath(_))), "{image}");
        }
        wrong(|request| {
            let volume = serde_json::json!({"host": "/", "guest": "/mnt"});
            let volume: VolumeSpec = serde_json::from_value(volume).unwrap();
            request.spec.machine.volumes.push(volume);
        });
    }

    #[test]
    fn what_only_the_client_has_is_refused() {
        let secret = checked(|request| {
            request.spec.secrets.insert("TOKEN".into());
        });
        assert_eq!(secret, Err(InvalidRequest::Client("secrets")));
        let stdin = checked(|request| request.spec.stdin = true);
        assert_eq!(stdin, Err(InvalidRequest::Client("standard input")));
    }

    #[test]
    fn secrets_are_for_one_job_and_one_command() {
        let (key, id) = (WorkerKey::random(), "a".parse().unwrap());
        let secrets: Secrets = [("TOKEN".to_owned(), "hunter2".to_owned())].into();
        let mut request = Request::new(JobSpec::new(["deploy"]));
        request.spec.env.insert("A".into(), "b".into());
        request.seal(&id, &secrets, &key.public()).unwrap();
        assert_eq!(request.check(), Ok(()));
        let json = serde_json::to_string(&request).unwrap();
        let request: Request = serde_json::from_str(&json).unwrap();
        assert_eq!(request.secrets(&id, Some(&key)).unwrap(), secrets);
        let other = request.secrets(&"b".parse().unwrap(), Some(&key));
        assert!(matches!(other, Err(SealError::OtherJob)), "{other:?}");
        let mut changed = request.clone();
        changed.spec.command = vec!["env".into()];
        let other = changed.secrets(&id, Some(&key));
        assert!(matches!(other, Err(SealError::OtherJob)), "{other:?}");

        // The same secrets again are the same request.
        let mut again = request.clone();
        again.seal(&id, &secrets, &key.public()).unwrap();
        assert!(again != request && again.is_same(&request));
        assert!(!changed.is_same(&request));
        again.sealed = None;
        assert!(!again.is_same(&request));
    }

    #[test]
    fn a_requirement_that_no_worker_understands_is_refused() {
        let require = |text: &str| {
            checked(|request| {
                request.require.insert(text.to_owned());
            })
        };
        assert_eq!(require("mem=8G"), Ok(()));
        let wrong = InvalidRequirement::Memory("x".to_owned());
        assert_eq!(require("mem=x"), Err(InvalidRequest::Requirement(wrong)));
    }

    #[test]
    fn a_job_requires_at_most_64_things() {
        let require = |count: usize| {
            checked(|request| request.require = (0..count).map(|n| format!("l{n}")).collect())
        };
        assert_eq!(require(64), Ok(()));
        assert_eq!(require(65), Err(InvalidRequest::Requirements(65)));
    }

    #[test]
    fn what_would_end_a_worker_is_refused_by_name() {
        let limit = |name: &str, value: &str| {
            checked(|request| {
                request.spec.limits.insert(name.to_owned(), value.to_owned());
            })
        };
        assert_eq!(limit("headers", "128"), Ok(()));
        let refused = limit("headers", "1T").unwrap_err();
        let text = "in limits (headers=1T): 1099511627776 is too large: the most is 4096";
        assert_eq!(refused.to_string(), text);
        for (name, value) in [("stall", "18000000000000000000s"), ("none", "1"), ("list", "x")] {
            assert!(matches!(limit(name, value), Err(InvalidRequest::Limit { .. })), "{name}");
        }
        let json = serde_json::json!({
            "spec": {"version": 1, "command": ["true"], "timeout": "18000000000000000000s"},
        });
        assert!(serde_json::from_value::<Request>(json).is_err());
    }

    #[test]
    fn sizes_and_numbers_have_limits() {
        assert_eq!(checked(|request| request.attempts = 0), Err(InvalidRequest::Attempts(0)));
        let command = checked(|request| request.spec.command.clear());
        assert_eq!(command, Err(InvalidRequest::NoCommand));
        let large = checked(|request| {
            request.spec.env.insert("A".into(), "x".repeat(MAX_REQUEST));
        });
        assert!(matches!(large, Err(InvalidRequest::Size(_))));
    }
}
