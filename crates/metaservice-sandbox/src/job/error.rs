//! The errors of a description that is not valid.

use std::path::PathBuf;

use crate::spec::InvalidPeriod;

use super::artifact::InvalidArtifact;
use super::cloud::InvalidCloud;
use super::copy_in::InvalidCopyIn;
use super::hardware::InvalidMachine;
use super::limits::InvalidLimit;
use super::name::InvalidName;
use super::options::InvalidOption;
use super::variables::InvalidVariable;

/// Why a [description](crate::spec::JobSpec) is not a job.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidJob {
    /// Another version of the description.
    #[error("descriptions of version {0} are not supported: this is version 1")]
    Version(u32),
    /// The command has no words.
    #[error("a job needs a command")]
    NoCommand,
    /// One value is wrong.
    #[error("in {field}")]
    Field {
        /// Which one.
        field: Field,
        /// What is wrong with it.
        #[source]
        cause: FieldError,
    },
    /// A secret is only safe in a session.
    #[error("a secret needs a session")]
    SecretsWithoutSession,
    /// A secret is named in a description, and its value is taken from elsewhere.
    #[error("a secret is the name of a variable, without a value: arguments are visible to others")]
    SecretWithValue,
    /// The variable of a secret has no value.
    #[error("the secret {0} is not set")]
    SecretNotSet(String),
    /// Two outputs would be written to one file.
    #[error("{first} and {second} would both write {}", path.display())]
    SameOutput {
        /// The output that comes first in the description.
        first: OutputField,
        /// The other one.
        second: OutputField,
        /// The file.
        path: PathBuf,
    },
    /// The machine's parts do not go together, or one is wrong.
    #[error(transparent)]
    Machine(#[from] InvalidMachine),
}

/// A value of a description, by its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Field {
    /// The job's name.
    #[error("name")]
    Name,
    /// A variable.
    #[error("env")]
    Env,
    /// A secret.
    #[error("secrets")]
    Secrets,
    /// The command's working directory.
    #[error("workdir")]
    Workdir,
    /// The command's user.
    #[error("user")]
    User,
    /// The guest's host name.
    #[error("hostname")]
    Hostname,
    /// The command's entry point.
    #[error("entrypoint")]
    Entrypoint,
    /// The command's timeout.
    #[error("timeout")]
    Timeout,
    /// A file to copy in, by its path on the host.
    #[error("copyIn ({})", .0.display())]
    CopyIn(PathBuf),
    /// An artifact, by its path in the guest.
    #[error("artifacts ({0})")]
    Artifact(String),
    /// A limit, by its name and value.
    #[error("limits ({0})")]
    Limit(String),
    /// A public key, as it is written.
    #[error("cloud.sshKeys ({0})")]
    SshKey(String),
    /// The file of user data.
    #[error("cloud.userData ({})", .0.display())]
    UserData(PathBuf),
}

impl Field {
    pub(crate) fn error(self, cause: impl Into<FieldError>) -> InvalidJob {
        InvalidJob::Field { field: self, cause: cause.into() }
    }
}

/// What is wrong with a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FieldError {
    /// It is no name of a job.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// It is no name of a variable.
    #[error(transparent)]
    Variable(#[from] InvalidVariable),
    /// It is not a directory, user, host name or entry point.
    #[error(transparent)]
    Option(#[from] InvalidOption),
    /// It is no duration.
    #[error(transparent)]
    Period(#[from] InvalidPeriod),
    /// It cannot be copied in.
    #[error(transparent)]
    CopyIn(#[from] InvalidCopyIn),
    /// It is no artifact.
    #[error(transparent)]
    Artifact(#[from] InvalidArtifact),
    /// It is no limit.
    #[error(transparent)]
    Limit(#[from] InvalidLimit),
    /// It is no key or no user data.
    #[error(transparent)]
    Cloud(#[from] InvalidCloud),
}

/// A file of the host that a job writes, by what it contains.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutputField {
    /// The artifact with this path in the guest.
    #[error("artifact {0}")]
    Artifact(String),
    /// The log.
    #[error("log")]
    Log,
    /// The console.
    #[error("console")]
    Console,
    /// The captured frames.
    #[error("pcap")]
    Pcap,
    /// The log of the network.
    #[error("network.log")]
    NetworkLog,
}
