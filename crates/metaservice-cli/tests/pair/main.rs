//! A real agent and a real service on one host, over real sockets, also with cut connections.
#![allow(clippy::unwrap_used, missing_docs)]

mod chaos;
mod commands;
mod files;
mod launch;
mod log;
mod renewal;
mod run;
mod scripts;
mod session;
mod state;
mod stdin;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::LazyLock;

/// The agent under test, as a program of this host. Each test has its own process, and atomically
/// writes the same file.
static AGENT: LazyLock<String> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut file = tempfile::NamedTempFile::new_in(directory).unwrap();
    file.write_all(metaservice_sandbox::AGENT).unwrap();
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.join("metaservice-guest");
    // Closed before it gets its name: the system runs no program that is open for writing.
    file.into_temp_path().persist(&path).unwrap();
    path.to_str().unwrap().to_owned()
});
