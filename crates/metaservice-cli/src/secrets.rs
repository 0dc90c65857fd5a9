//! Takes the values of secrets out of the environment.
//!
//! Owns the way there: what a process was started with stays readable in `/proc/PID/environ` for
//! all processes of its user, as long as it lives, whatever it does to its variables. So the tool
//! executes itself again without them, under the same process id, and finds the values in a file
//! without a name that only this process has open, and only until it has read it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::cli::Cli;
use crate::commands::Command;
use crate::commands::run::Run;
use crate::description;
use crate::flags::JobArgs;

/// Names the descriptor of the values.
const VARIABLE: &str = "METASERVICE_SECRETS";

/// The longest values together. The kernel takes no larger environment.
const MAX_LENGTH: u64 = 16 * 1024 * 1024;

/// Takes them out, if there are any: begins the process anew then, and comes here again.
pub(crate) fn withdraw(cli: &mut Cli) -> io::Result<()> {
    let names = names(&cli.command);
    let Some(job) = job(&mut cli.command) else { return Ok(()) };
    if let Some(descriptor) = std::env::var_os(VARIABLE) {
        job.withdrawn = take(Path::new("/proc/self/fd").join(descriptor).as_path())?;
        return Ok(());
    }
    let values: BTreeMap<&String, String> =
        names.iter().filter_map(|name| Some((name, std::env::var(name).ok()?))).collect();
    if values.is_empty() {
        return Ok(());
    }
    let file = keep(&serde_json::to_vec(&values)?)?;
    let mut arguments = std::env::args_os();
    let mut again = process::Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    again.args(arguments).env(VARIABLE, file.as_raw_fd().to_string());
    for name in values.keys() {
        again.env_remove(name);
    }
    // Comes back only with an error.
    Err(again.exec())
}

/// The names of the secrets that flags or a description have.
fn names(command: &Command) -> Vec<String> {
    match command {
        Command::Run(Run { spec: Some(file), .. }) => description::secrets_of(file),
        Command::Run(args) => args.job.secret.clone(),
        Command::Serve(args) => args.job.secret.clone(),
        _ => Vec::new(),
    }
}

fn job(command: &mut Command) -> Option<&mut JobArgs> {
    match command {
        Command::Run(args) => Some(&mut args.job),
        Command::Serve(args) => Some(&mut args.job),
        _ => None,
    }
}

/// A file without a name that the next program inherits.
fn keep(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("secrets", MemfdFlags::empty())?);
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    fcntl_setfd(&file, FdFlags::empty())?;
    Ok(file.into())
}

/// Reads the values and empties the file: the descriptor stays with this process, and holds nothing.
fn take(file: &Path) -> io::Result<BTreeMap<String, String>> {
    let file = File::options().read(true).write(true).open(file)?;
    let mut text = Vec::new();
    (&file).take(MAX_LENGTH).read_to_end(&mut text)?;
    file.set_len(0)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_taken_once() {
        let kept = keep(br#"{"A":"1"}"#).unwrap();
        let path = format!("/proc/self/fd/{}", kept.as_raw_fd());
        assert_eq!(take(Path::new(&path)).unwrap(), [("A".to_owned(), "1".to_owned())].into());
        assert!(take(Path::new(&path)).is_err());
    }
}
