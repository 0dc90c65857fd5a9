//! Why jobs and attempts of a queue have no result, in words.

use metaservice_fleet::step::{ExceptionCause, LostCause};

/// Why a job has no result, in words.
pub(crate) fn exception(cause: ExceptionCause) -> &'static str {
    match cause {
        ExceptionCause::Deadline => "it did not start before its deadline",
        ExceptionCause::Artifacts => "its worker does not allow such artifacts",
        ExceptionCause::Lost(cause) => loss(cause),
    }
}

/// Why an attempt has no result, in words.
pub(crate) fn loss(cause: LostCause) -> &'static str {
    match cause {
        LostCause::Lease => "its worker was lost",
        LostCause::Machine => "its machine failed",
        LostCause::Output => "its outputs could not be kept",
        LostCause::Refused => "the worker cannot run it",
        LostCause::Released => "its worker gave it back",
    }
}
