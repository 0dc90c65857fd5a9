//! Why a store was not opened, and an object not stored or read.

use std::io;
use std::path::PathBuf;

use crate::queue::{FetchError, ServerError};

/// Why an address is that of no store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It is none.
    #[error(
        "this is no address of a store: file:///DIRECTORY, s3://BUCKET, gs://BUCKET or az://CONTAINER"
    )]
    Url,
    /// It has a user or a password. They would be in the steps of each job.
    #[error(
        "the address of a store has no user and no password: set the variables of its provider"
    )]
    Password,
    /// The directory cannot be used.
    #[error("cannot use the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The settings of the store are wrong.
    #[error("cannot use the store")]
    Settings(#[source] object_store::Error),
}

/// Why an object was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The file cannot be read.
    #[error("cannot read what is to be stored")]
    Read(#[source] io::Error),
    /// The store does not take it.
    #[error("the store does not take it")]
    Store(#[source] object_store::Error),
    /// The queue does not take it.
    #[error("the queue does not take it")]
    Queue(#[source] ServerError),
}

/// Why an object was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// The queue's object store does not give it.
    #[error(transparent)]
    Queue(#[from] FetchError),
    /// The store does not give it.
    #[error("the store does not give the object {name}")]
    Store {
        /// The name of the object.
        name: String,
        /// Why.
        #[source]
        cause: object_store::Error,
    },
    /// It cannot be written on this host.
    #[error("cannot write the object")]
    Write(#[source] io::Error),
    /// It is in another store.
    #[error("it is in the store {0}")]
    Elsewhere(String),
    /// It is not what the worker stored.
    #[error("the object {0} was changed in the store: its digest is another")]
    Digest(String),
}
