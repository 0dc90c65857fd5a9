//! The destinations of output on the host: files and streams that the user names, and the log.

mod destination;
pub(crate) mod log_sink;

pub use destination::{Beside, Destination, Named, is_stream, open_output};
pub use log_sink::is_unread;
