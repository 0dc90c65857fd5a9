//! A directory with mounts of its own.

use std::ffi::CString;
use std::io;
use std::process::{Command, Stdio};

use super::armed::{Armed, entry};
use super::error::ConfineError;
use super::handshake::Held;
use super::steps::Step;

/// Has a child make mounts, and takes the directory from it. The child ends.
pub(super) fn hold(
    privileged: bool,
    steps: Vec<Step>,
    directory: &str,
) -> Result<Held, ConfineError> {
    // The program is never executed.
    let mut command = Command::new("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let (mut entry, ends) = entry(privileged, steps)?;
    entry.waits_at = Some(CString::new(directory).map_err(io::Error::from)?);
    let armed = Armed::prepare(&mut command, Some((entry, ends)), None, Vec::new());
    let (spawned, seen) = armed.run(&mut command);
    match (seen.held, spawned) {
        (Some(held), _) => Ok(held),
        (None, Err(error)) => Err(error),
        (None, Ok(mut child)) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(ConfineError::Io(io::ErrorKind::Other.into()))
        }
    }
}
