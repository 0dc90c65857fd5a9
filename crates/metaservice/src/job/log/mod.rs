//! The job's log: one writer, any number of log requests, any number of later readers.
//!
//! [`writer`] owns the log sink, [`streams`] decides which bytes of a request are new, [`record`]
//! persists the log, [`history`] keeps its end for [readers](reader), also [in files](stored) that
//! outlive the job. Both store a [ring] of bytes, and an [index] of their [segments].

mod files;
mod history;
mod hole;
mod index;
mod reader;
mod record;
mod ring;
mod segments;
mod shared;
mod stored;
mod streams;
mod writer;

pub(crate) use self::history::History;
pub(crate) use self::hole::Holes;
pub use self::reader::{LogFrom, LogItem, LogReader};
pub(crate) use self::record::Record;
pub use self::segments::LogSegment;
pub use self::stored::{StoredLog, StoredLogWriter};
pub(crate) use self::streams::Misplaced;
pub use self::writer::LogError;
pub(crate) use self::writer::{Log, LogSinks, WriteError};
