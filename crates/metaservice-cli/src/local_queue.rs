//! The queue of this host: its place, and whether it runs.

use std::path::PathBuf;

use anyhow::{Context, Result};
use metaservice_fleet::server;
use metaservice_private::bases::BaseDirectory;

/// The directory of the queue and the workers of this user.
pub(crate) fn directory() -> Result<PathBuf> {
    let state = BaseDirectory::state().context("there is no home directory: set HOME")?;
    Ok(state.path().join("metaservice/fleet"))
}

/// The address of the queue of this host, while a worker runs it.
pub(crate) fn address() -> Result<Option<String>> {
    Ok(server::running(&directory()?.join("server")))
}

/// Whether a job of this name may be one of the queue of this host: the name is as those that
/// `submit` chooses, and the queue runs.
pub(crate) fn may_have(name: &str) -> bool {
    let is_chosen = name.len() == CHOSEN && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_chosen && matches!(address(), Ok(Some(_)))
}

/// The length of an id that `submit` chooses.
const CHOSEN: usize = 12;

#[cfg(test)]
mod tests {
    use metaservice_fleet::name::JobId;

    use super::*;

    #[test]
    fn submit_chooses_ids_of_this_length() {
        let id = JobId::random();
        assert_eq!(id.as_str().len(), CHOSEN);
        assert!(id.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
