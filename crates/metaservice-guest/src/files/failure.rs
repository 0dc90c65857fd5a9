//! Errors of the file system as failures for the host.

use std::io;
use std::path::Path;

use metaservice_protocol::{Failure, FailureCode};
use rustix::io::Errno;

use crate::diagnostics::with_causes;

/// The failure for an error of the kernel.
pub(super) fn from_errno(errno: Errno, path: &Path) -> Failure {
    let code = match errno {
        Errno::NOENT | Errno::NOTDIR => FailureCode::NotFound,
        Errno::ACCESS | Errno::PERM => FailureCode::PermissionDenied,
        Errno::NOSPC | Errno::DQUOT => FailureCode::NoSpace,
        Errno::ROFS => FailureCode::ReadOnly,
        _ => FailureCode::Other,
    };
    let reason = with_causes(&io::Error::from(errno));
    Failure::new(code, format!("{}: {reason}", path.display()))
}

/// The failure for an error of the kernel or of a library.
pub(super) fn from_io(error: &io::Error, path: &Path) -> Failure {
    // An error with a message of its own is a library's.
    if error.raw_os_error().is_none() && error.get_ref().is_some() {
        return Failure::new(FailureCode::Invalid, format!("{}: {error}", path.display()));
    }
    let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
    from_errno(errno, path)
}
