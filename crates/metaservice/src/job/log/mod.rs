//! The job's log: one writer, any number of log requests, any number of later readers.
//!
//! [`writer`] owns the log sink, [`streams`] decides which bytes of a request are new, [`record`]
//! persists the log, [`history`] keeps its end for readers.

mod history;
mod hole;
mod index;
mod record;
mod streams;
mod writer;

pub(crate) use self::history::History;
pub use self::history::{LogFrom, LogItem, LogReader};
pub(crate) use self::hole::Holes;
pub(crate) use self::record::Record;
pub(crate) use self::streams::Misplaced;
pub use self::writer::LogError;
pub(crate) use self::writer::{Log, WriteError};
