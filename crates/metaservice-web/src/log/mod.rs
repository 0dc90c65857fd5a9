//! The logs of jobs, as the page reads them.
//!
//! [`row`] makes text of bytes, in the [styles](style) of a terminal. [`index`] knows where lines
//! begin, [`window`] makes the rows of some of them, [`search`] finds those that match a
//! [pattern]. None of these does I/O. [`open`] follows a log and reads it, [`logs`] owns the open
//! ones.

mod access;
mod feed;
mod index;
mod logs;
mod open;
mod pattern;
mod row;
mod search;
mod style;
mod window;

pub(crate) use access::{Access, AccessError};
pub(crate) use logs::Logs;
pub(crate) use open::{OpenLog, ReadError};
pub(crate) use pattern::{InvalidPattern, Pattern};
pub(crate) use search::Matches;
pub(crate) use window::ShownLine;
