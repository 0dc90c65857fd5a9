//! The destinations of output on the host: files and streams that the user names, and the log.

mod destination;
pub(crate) mod log_sink;
mod named;

pub use destination::{Beside, Destination, is_stream, open_output, open_record};
pub use log_sink::is_unread;
pub use named::Named;
pub(crate) use named::{open_directory, open_parent, parent};
