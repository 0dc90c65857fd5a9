//! Why a source does not have or do something.

/// Why a source does not have or do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// There is no job, image or artifact of this name.
    #[error("there is no job, image or artifact of this name")]
    NotFound,
    /// It is not done, for this reason. The text is for people.
    #[error("{0}")]
    Refused(String),
    /// This source cannot do it at all.
    #[error("this is not possible here")]
    Unsupported,
    /// The jobs cannot be read, or not be changed.
    #[error("the jobs cannot be reached")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}
