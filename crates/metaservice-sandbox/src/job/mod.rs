//! A job whose description was checked.
//!
//! Owns the step from [`JobSpec`] to [`Job`]. It parses every value once, and rejects values that
//! contradict each other before anything starts. It reads three kinds of files that the description
//! names: public keys, user data and network policies. It does not look for tools or images: that
//! is the work of the [plan](crate::machine::Plan).

mod artifact;
mod cloud;
mod copy_in;
mod error;
pub(crate) mod glob;
mod hardware;
mod limits;
mod name;
mod network;
mod options;
mod variables;
mod volume;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use metaservice::{SessionMode, TerminalSize, VolumeMode};

use crate::copy::place;
use crate::output::{self, Named};
use crate::spec::{
    ArtifactsOn, CloudSpec, JobSpec, Period, SessionSpec, StderrSpec, TerminalSpec, VERSION,
};

pub(crate) use artifact::ArtifactSource;
pub use artifact::{Artifact, InvalidArtifact};
pub use cloud::{CloudSettings, InvalidCloud, cards};
pub use copy_in::{CopyIn, InvalidCopyIn};
pub use error::{Field, FieldError, InvalidJob, OutputField};
pub use glob::InvalidGlob;
pub use hardware::{Hardware, InvalidMachine, KernelChoice};
pub use limits::{InvalidLimit, Limits, parse_limit};
pub use name::{InvalidName, JobName};
pub use network::{InvalidNetwork, InvalidPublish, Network, Publish};
pub use options::InvalidOption;
pub(crate) use options::LaunchOptions;
use options::Wrong;
pub use variables::{EnvFileError, InvalidVariable, parse_env_file, set_variable};
pub use volume::{InvalidVolume, MAX_VOLUMES, Volume};

/// A job whose description was checked. Make one with [`Job::resolve`] or `TryFrom<JobSpec>`.
///
/// ```
/// use metaservice_sandbox::{job::Job, spec::JobSpec};
///
/// let job = Job::try_from(JobSpec::new(["make", "test"]))?;
/// assert_eq!(job.command(), ["make", "test"]);
/// # Ok::<(), metaservice_sandbox::job::InvalidJob>(())
/// ```
#[derive(Debug, Clone)]
pub struct Job {
    pub(crate) name: JobName,
    /// Whether the description has the name.
    pub(crate) named: bool,
    pub(crate) command: Vec<String>,
    /// What clients are shown in place of the command.
    pub(crate) shown: Option<Vec<String>>,
    pub(crate) env: BTreeMap<String, String>,
    /// Variables that only the guest's agent gets.
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) options: LaunchOptions,
    pub(crate) terminal: Option<TerminalSize>,
    pub(crate) stderr: Option<StderrSpec>,
    /// Whether the host feeds the command's stdin.
    pub(crate) stdin: bool,
    pub(crate) session: SessionMode,
    pub(crate) timeout: Option<Duration>,
    /// How long the machine is kept after the command has failed.
    pub(crate) keep: Option<Duration>,
    pub(crate) copy_in: Vec<CopyIn>,
    pub(crate) artifacts: Vec<Artifact>,
    pub(crate) artifacts_on: ArtifactsOn,
    pub(crate) log: Option<PathBuf>,
    pub(crate) limits: Limits,
    pub(crate) cloud: CloudSettings,
    pub(crate) hardware: Hardware,
    /// The description, without the values of variables.
    pub(crate) described: serde_json::Value,
}

impl Job {
    /// Checks a description. `secret` gives the value of each secret variable.
    ///
    /// Blocks: looks for what is to be copied, and reads the files of public keys, of user data and
    /// of network policies that the description names.
    ///
    /// # Errors
    /// The first value that is wrong, or the first two that do not go together.
    pub fn resolve(
        spec: JobSpec,
        secret: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidJob> {
        if spec.version != VERSION {
            return Err(InvalidJob::Version(spec.version));
        }
        let entrypoint = spec.entrypoint.as_ref().is_some_and(|words| !words.is_empty());
        if spec.command.is_empty() && !entrypoint {
            return Err(InvalidJob::NoCommand);
        }
        let (limits, timeout) = bounded(&spec)?;
        for name in spec.env.keys() {
            variables::check_name(name).map_err(|error| Field::Env.error(error))?;
        }
        let secrets = secrets(&spec, secret)?;
        let options = LaunchOptions::resolve(&spec).map_err(|(wrong, error)| {
            let field = match wrong {
                Wrong::Workdir => Field::Workdir,
                Wrong::User => Field::User,
                Wrong::Hostname => Field::Hostname,
                Wrong::Entrypoint => Field::Entrypoint,
            };
            field.error(error)
        })?;
        let artifacts = spec.artifacts.iter().map(|artifact| {
            let invalid = |error| Field::Artifact(artifact.path.clone()).error(error);
            Artifact::resolve(artifact).map_err(invalid)
        });
        let workdir = spec.workdir.as_deref();
        let copy_in = spec.copy_in.iter().map(|copy| {
            let invalid = |error| Field::CopyIn(copy.from.clone()).error(error);
            CopyIn::resolve(copy, workdir).map_err(invalid)
        });
        let copy_in = copy_in.collect::<Result<_, _>>()?;
        let described = described(&spec);
        let mut job = Self {
            named: spec.name.is_some(),
            name: JobName::resolve(spec.name).map_err(|error| Field::Name.error(error))?,
            command: spec.command,
            shown: None,
            env: spec.env,
            secrets,
            options,
            terminal: spec
                .terminal
                .map(|TerminalSpec { columns, rows }| TerminalSize { columns, rows }),
            stderr: spec.stderr,
            stdin: spec.stdin,
            session: match spec.session {
                SessionSpec::Required => SessionMode::Required,
                SessionSpec::Claimed => SessionMode::Claimed,
                SessionSpec::Off => SessionMode::Off,
            },
            timeout,
            keep: spec.keep_on_failure.map(Period::get),
            copy_in,
            artifacts: artifacts.collect::<Result<_, _>>()?,
            artifacts_on: spec.artifacts_on,
            log: spec.log,
            limits,
            cloud: cloud(&spec.cloud)?,
            hardware: Hardware::resolve(spec.machine)?,
            described,
        };
        job.guard_artifacts();
        job.check_outputs()?;
        Ok(job)
    }

    /// Checks the limits and the timeout of a description only: whether a host can bear them. It
    /// reads no file and no variable.
    ///
    /// # Errors
    /// The first of these values that is wrong.
    pub fn check_limits(spec: &JobSpec) -> Result<(), InvalidJob> {
        bounded(spec).map(|_| ())
    }

    /// Artifacts do not follow what the guest makes in a volume that it writes.
    fn guard_artifacts(&mut self) {
        let volumes = &self.hardware.volumes;
        let writable = |volume: &&Volume| volume.mode == VolumeMode::ReadWrite;
        let written = || volumes.iter().filter(writable).map(|volume| volume.host.as_path());
        if written().next().is_some() {
            let artifacts = std::mem::take(&mut self.artifacts).into_iter();
            self.artifacts = artifacts.map(|artifact| artifact.guard(written())).collect();
        }
    }

    /// The job's name: a host name of one label.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The host name that a machine of the job gets: by default the job's name.
    #[must_use]
    pub fn hostname(&self) -> &str {
        self.options.hostname.as_deref().unwrap_or(self.name())
    }

    /// The command and its arguments.
    #[must_use]
    pub fn command(&self) -> &[String] {
        &self.command
    }

    /// Whether the host feeds the command's stdin.
    #[must_use]
    pub fn stdin(&self) -> bool {
        self.stdin
    }

    /// Whether stdout and stderr of the command are two outputs of the log, if the guest's agent
    /// can separate them.
    #[must_use]
    pub fn separates_stderr(&self) -> bool {
        self.terminal.is_none() && self.stderr != Some(StderrSpec::Merged)
    }

    /// Whether the description asks for that. It is the default.
    pub(crate) fn asks_to_separate_stderr(&self) -> bool {
        self.stderr == Some(StderrSpec::Separate)
    }

    /// Whether the command has a terminal.
    #[must_use]
    pub fn has_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// The artifacts, in the order of the description.
    #[must_use]
    pub fn artifacts(&self) -> &[Artifact] {
        &self.artifacts
    }

    /// The file that the log is written to, besides the caller's sink.
    #[must_use]
    pub fn log(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    /// How long the command may run.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The limits on what the guest can use of the host.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What a cloud image is given besides the agent.
    #[must_use]
    pub fn cloud(&self) -> &CloudSettings {
        &self.cloud
    }

    /// The description of the machine.
    #[must_use]
    pub fn hardware(&self) -> &Hardware {
        &self.hardware
    }

    /// Shows clients these words in place of the command.
    #[must_use]
    pub fn shown_as(mut self, words: Vec<String>) -> Self {
        self.shown = Some(words);
        self
    }

    /// Refuses two outputs in one file. Several may go to one device or pipe.
    fn check_outputs(&self) -> Result<(), InvalidJob> {
        let mut taken = BTreeMap::new();
        for (field, path, named) in self.outputs() {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = std::fs::canonicalize(parent.unwrap_or(Path::new(".")));
            // A path that cannot be used is an error where it is opened.
            let (Ok(parent), Some(name)) = (parent, path.file_name()) else { continue };
            if output::is_stream(path, named) {
                continue;
            }
            if let Some(first) = taken.insert(parent.join(name), field.clone()) {
                return Err(InvalidJob::SameOutput { first, second: field, path: path.to_owned() });
            }
        }
        for artifact in self.artifacts.iter().filter(|artifact| artifact.kind.is_glob()) {
            // Several patterns may share a directory, and nothing else replaces it.
            let (path, second) =
                (&artifact.destination, OutputField::Artifact(artifact.source.clone()));
            let parent = std::fs::canonicalize(place::parent(path));
            let (Ok(parent), Some(name)) = (parent, path.file_name()) else { continue };
            if let Some(first) = taken.get(&parent.join(name)).cloned() {
                return Err(InvalidJob::SameOutput { first, second, path: path.clone() });
            }
        }
        Ok(())
    }

    /// Each file of the host that the job writes, in the order of the description.
    fn outputs(&self) -> impl Iterator<Item = (OutputField, &Path, Named)> {
        let Hardware { console, pcap, network, .. } = &self.hardware;
        let own = [
            (OutputField::Console, console.as_deref()),
            (OutputField::Pcap, pcap.as_deref()),
            (OutputField::NetworkLog, network.log()),
        ];
        let own = own.into_iter().filter_map(|(field, path)| Some((field, path?, Named::ByUser)));
        let single = self.artifacts.iter().filter(|artifact| !artifact.kind.is_glob());
        let artifacts = single.map(|artifact| {
            let field = OutputField::Artifact(artifact.source.clone());
            (field, artifact.destination.as_path(), artifact.named)
        });
        let log = self.log.as_deref().map(|path| (OutputField::Log, path, Named::ByUser));
        own.chain(artifacts).chain(log)
    }
}

impl TryFrom<JobSpec> for Job {
    type Error = InvalidJob;

    /// Checks a description. The values of secrets are taken from the process's environment.
    fn try_from(spec: JobSpec) -> Result<Self, InvalidJob> {
        Self::resolve(spec, |name| std::env::var(name).ok())
    }
}

/// The limits and the timeout of a description.
fn bounded(spec: &JobSpec) -> Result<(Limits, Option<Duration>), InvalidJob> {
    let limits = Limits::resolve(&spec.limits, spec.max_log, spec.max_artifact)
        .map_err(|(limit, error)| Field::Limit(limit).error(error))?;
    let timeout = spec.timeout.map(|timeout| Period::new(timeout.get())).transpose();
    let timeout = timeout.map_err(|error| Field::Timeout.error(error))?.map(Period::get);
    Ok((limits, timeout))
}

/// The description for the history. Values of variables may be secrets.
fn described(spec: &JobSpec) -> serde_json::Value {
    let mut spec = spec.clone();
    spec.env.clear();
    serde_json::to_value(spec).unwrap_or_default()
}

fn cloud(spec: &CloudSpec) -> Result<CloudSettings, InvalidJob> {
    let mut settings = CloudSettings::default();
    for key in &spec.ssh_keys {
        let invalid = |error| Field::SshKey(key.clone()).error(error);
        settings.add_keys(key).map_err(invalid)?;
    }
    if let Some(path) = &spec.user_data {
        let invalid = |error| Field::UserData(path.clone()).error(error);
        settings.read_user_data(path).map_err(invalid)?;
    }
    Ok(settings)
}

fn secrets(
    spec: &JobSpec,
    value: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, InvalidJob> {
    if !spec.secrets.is_empty() && spec.session == SessionSpec::Off {
        return Err(InvalidJob::SecretsWithoutSession);
    }
    let mut secrets = BTreeMap::new();
    for name in &spec.secrets {
        if name.contains('=') {
            return Err(InvalidJob::SecretWithValue);
        }
        variables::check_name(name).map_err(|error| Field::Secrets.error(error))?;
        let value = value(name).ok_or_else(|| InvalidJob::SecretNotSet(name.clone()))?;
        secrets.insert(name.clone(), value);
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests;
