//! The description of a job, as plain data. The command line and files use the same description.
//!
//! Owns the fields of a description and their form in JSON. It checks only the form: a
//! [`Job`](crate::job::Job) is a description whose values were checked too. Secrets are in it by
//! name only.
//!
//! ```
//! use metaservice_sandbox::spec::JobSpec;
//!
//! let spec: JobSpec = serde_json::from_str(
//!     r#"{"version": 1, "command": ["make", "test"], "timeout": "10m", "machine": {"cpus": 2}}"#,
//! )?;
//! assert_eq!(spec.machine.cpus, 2);
//! assert_eq!(spec.machine.memory.to_string(), "1G");
//! # Ok::<(), serde_json::Error>(())
//! ```

mod absolute;
mod network;
mod period;
mod size;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use network::{NetworkMode, NetworkSpec};
pub use period::{InvalidPeriod, Period};
pub use size::{InvalidSize, Size};

/// The JSON Schema of a description.
#[cfg(feature = "schema")]
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(JobSpec).into()
}

/// The version of descriptions that this crate reads and writes.
pub const VERSION: u32 = 1;

/// All that a job is.
///
/// Unknown members are errors: a description that asks for something that this version does not
/// know must not run without it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct JobSpec {
    /// The version of this description: [`VERSION`].
    pub version: u32,
    /// The job's name; without one it gets one that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Variables of its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Names of secret variables of the command. The values are taken from the environment of the
    /// process that starts the job. The service gives them only to the agent that claims the job,
    /// and the agent gives them to the command. This implies the session `required`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
    /// The working directory of the command: an absolute path in the guest. Without: the one that
    /// the agent's configuration names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// The user of the command: `NAME`, `UID`, `NAME:GROUP` or `UID:GID`. Without: the one that the
    /// agent's configuration names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The guest's host name. Without: the job's name, for a machine that is started here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The words in front of the command. Empty is none. Without: those of the agent's
    /// configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The terminal that the command gets; its output is the log. Without: no terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSpec>,
    /// Where the command's stderr goes; by default it is `separate`.
    ///
    /// If the guest's agent cannot separate it, it is merged. This is reported if the value is
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<StderrSpec>,
    /// Whether the host feeds the command's stdin. Without, it is `/dev/null`, or a terminal
    /// without input.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin: bool,
    /// Whether the guest's agent has to claim the job.
    #[serde(default, skip_serializing_if = "is_default")]
    pub session: SessionSpec,
    /// How long the command may run. Without: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// How long the machine is kept for clients after the command has failed. Without: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_on_failure: Option<Period>,
    /// Files and directories that the guest gets before the command starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copy_in: Vec<CopyInSpec>,
    /// Files and directories to fetch when the command has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<ArtifactSpec>,
    /// When artifacts are fetched.
    #[serde(default, skip_serializing_if = "is_default")]
    pub artifacts_on: ArtifactsOn,
    /// A file that the log is written to, besides where the job's owner reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// The largest log. A larger one kills the command.
    #[serde(default = "default_log", skip_serializing_if = "is_default_log")]
    pub max_log: Size,
    /// The largest artifact, and the largest file that a client copies out of the guest.
    #[serde(default = "default_artifact", skip_serializing_if = "is_default_artifact")]
    pub max_artifact: Size,
    /// Limits by their names, where they differ from the defaults: see the reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
    /// What a cloud image is given besides the agent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cloud: CloudSpec,
    /// The machine.
    #[serde(default)]
    pub machine: HardwareSpec,
}

impl JobSpec {
    /// A job of this command, with the defaults for all else.
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            version: VERSION,
            name: None,
            command: command.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            secrets: BTreeSet::new(),
            workdir: None,
            user: None,
            hostname: None,
            entrypoint: None,
            terminal: None,
            stderr: None,
            stdin: false,
            session: SessionSpec::default(),
            timeout: None,
            keep_on_failure: None,
            copy_in: Vec::new(),
            artifacts: Vec::new(),
            artifacts_on: ArtifactsOn::default(),
            log: None,
            max_log: default_log(),
            max_artifact: default_artifact(),
            limits: BTreeMap::new(),
            cloud: CloudSpec::default(),
            machine: HardwareSpec::default(),
        }
    }
}

/// Where a command's stderr goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StderrSpec {
    /// The log says which bytes are stderr. With a terminal there is one output all the same.
    Separate,
    /// It goes to stdout, in the order in which the command writes.
    Merged,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TerminalSpec {
    /// Characters in a row.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// Whether the guest's agent has to claim a job before it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SessionSpec {
    /// Nothing is served to an agent that has not claimed the job.
    Required,
    /// Only the first agent to claim the job is served. Old agents cannot claim, and still work.
    #[default]
    Claimed,
    /// Every process of the guest is served.
    Off,
}

/// A file or a directory of the host and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CopyInSpec {
    /// Its path on the host.
    pub from: PathBuf,
    /// Its path in the guest, as for `cp`. Without: its name, in the working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// When artifacts are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ArtifactsOn {
    /// Always.
    #[default]
    Always,
    /// If the command failed or was killed.
    Failure,
    /// If the command succeeded.
    Success,
}

impl ArtifactsOn {
    /// Whether artifacts are fetched after a command with this outcome.
    #[must_use]
    pub const fn wants(self, success: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Failure => !success,
            Self::Success => success,
        }
    }
}

/// A file or a directory of the guest and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArtifactSpec {
    /// Its path in the guest, or a pattern: `*`, `?`, `[...]`, `{...}` or `**`.
    pub path: String,
    /// A path of the host or an existing directory; for a pattern, a directory. Without: the
    /// working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<PathBuf>,
}

/// What a cloud image is given besides the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CloudSpec {
    /// Public keys, or files of public keys, by which the image's user may log in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    /// A file of user data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<PathBuf>,
}

/// What a machine is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HardwareSpec {
    /// An image of the store by name or digest, or a disk image's path. Without: the built-in
    /// guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<PathBuf>,
    /// A directory of the host that is the guest's root: read-only, under a layer in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<PathBuf>,
    /// Paths below `rootfs` and volumes that are shown although they are hidden by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub show: Vec<PathBuf>,
    /// More paths below `rootfs` and volumes that are hidden: they look empty to the guest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hide: Vec<PathBuf>,
    /// Directories of the host that are mounted in the guest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeSpec>,
    /// A kernel to boot; `builtin` boots the built-in one on the image's root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk that belongs to the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// Processors: 1 or more.
    pub cpus: u32,
    /// Memory.
    pub memory: Size,
    /// What runs the processors.
    pub accel: AccelSpec,
    /// What the guest reaches besides the service, and how it is reached.
    #[serde(skip_serializing_if = "is_default")]
    pub network: NetworkSpec,
    /// How long the guest may take to fetch its command. Without: as the kind of machine needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_timeout: Option<Period>,
    /// Whether the machine may be restored from a snapshot, and one may be made after the job.
    pub snapshot: bool,
    /// Whether the built-in kernel boots at random addresses. Such a machine has no snapshot.
    pub kaslr: bool,
    /// A file that every frame between guest and host is written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcap: Option<PathBuf>,
    /// A file that the console is written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console: Option<PathBuf>,
}

impl Default for HardwareSpec {
    fn default() -> Self {
        Self {
            image: None,
            rootfs: None,
            show: Vec::new(),
            hide: Vec::new(),
            volumes: Vec::new(),
            kernel: None,
            initrd: None,
            cpus: 1,
            memory: Size(1 << 30),
            accel: AccelSpec::default(),
            network: NetworkSpec::default(),
            boot_timeout: None,
            snapshot: true,
            kaslr: false,
            pcap: None,
            console: None,
        }
    }
}

/// A directory of the host that is mounted in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeSpec {
    /// The directory. A relative path begins at the working directory of the process that starts
    /// the job.
    pub host: PathBuf,
    /// The absolute path in the guest. It is created if it is missing.
    pub guest: String,
    /// What the guest may write.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: VolumeModeSpec,
}

/// What a guest may write to a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum VolumeModeSpec {
    /// Nothing.
    #[default]
    Ro,
    /// Everything, to the directory of the host.
    Rw,
    /// Everything, to a layer in its memory.
    Overlay,
}

/// What runs a machine's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AccelSpec {
    /// KVM where it works, else software emulation.
    #[default]
    Auto,
    /// The processor's own virtualization.
    Kvm,
    /// Software emulation.
    Tcg,
}

/// Both are bounded to keep a guest from filling the host's disk.
const fn default_log() -> Size {
    Size(64 << 30)
}

const fn default_artifact() -> Size {
    Size(64 << 30)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_default_log(size: &Size) -> bool {
    *size == default_log()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_default_artifact(size: &Size) -> bool {
    *size == default_artifact()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_description_is_a_command() {
        let spec: JobSpec = serde_json::from_str(r#"{"version":1,"command":["true"]}"#).unwrap();
        assert_eq!(spec, JobSpec::new(["true"]));
    }

    #[test]
    fn a_description_is_read_as_it_was_written() {
        let mut spec = JobSpec::new(["sh", "-c", "true"]);
        spec.name = Some("a".to_owned());
        spec.timeout = Some("1h30m".parse().unwrap());
        spec.artifacts = vec![ArtifactSpec { path: "/a".to_owned(), to: Some("b".into()) }];
        spec.machine.image = Some("debian".into());
        spec.machine.memory = Size(1536 << 20);
        let json = serde_json::to_string(&spec).unwrap();
        assert!(json.contains(r#""timeout":"1h 30m""#), "{json}");
        assert!(json.contains(r#""memory":"1536M""#), "{json}");
        assert_eq!(serde_json::from_str::<JobSpec>(&json).unwrap(), spec);
    }

    #[test]
    fn what_is_not_known_is_not_passed_over() {
        for wrong in [
            r#"{"version":1,"command":["true"],"volume":"a"}"#,
            r#"{"version":1,"command":["true"],"machine":{"disk":"a"}}"#,
            r#"{"version":1}"#,
            r#"{"command":["true"]}"#,
            r#"{"version":1,"command":["true"],"timeout":"soon"}"#,
        ] {
            assert!(serde_json::from_str::<JobSpec>(wrong).is_err(), "{wrong}");
        }
    }
}
