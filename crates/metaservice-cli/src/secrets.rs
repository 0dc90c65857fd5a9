//! Removes the values of secrets from the environment of this process.
//!
//! This module owns the way of the values into the job. The initial environment of a process stays
//! readable in `/proc/PID/environ` for all processes of the user, even if the process removes its
//! variables. Therefore the tool executes itself again without them, under the same process id.
//!
//! The values are passed in an unnamed file. Only this process has it open, and it empties the file
//! after reading.

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
use crate::description;
use crate::flags::JobArgs;

/// The variable with the number of the descriptor of the values.
const VARIABLE: &str = "METASERVICE_SECRETS";

/// The maximum length of all values together, in bytes. The kernel accepts no larger environment.
const MAX_LENGTH: u64 = 16 * 1024 * 1024;

/// Removes the values from the environment. If there are any, this executes the tool again, which
/// then calls this function again and reads the values.
pub(crate) fn withdraw(cli: &mut Cli) -> io::Result<()> {
    let names = names(&cli.command);
    let Some(job) = job(&mut cli.command) else { return Ok(()) };
    if let Some(descriptor) = std::env::var_os(VARIABLE) {
        // A number only: another path would be opened and emptied.
        let descriptor = descriptor.to_str().and_then(|text| text.parse::<u32>().ok());
        let descriptor = descriptor.ok_or(io::ErrorKind::InvalidInput)?;
        job.withdrawn = take(&Path::new("/proc/self/fd").join(descriptor.to_string()))?;
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
    // `exec` returns only on error.
    Err(again.exec())
}

/// Returns the names of the secrets in the flags or the description.
fn names(command: &Command) -> Vec<String> {
    match command {
        Command::Run(args) => match &args.spec {
            Some(file) => description::secrets_of(file),
            None => args.job.secret.clone(),
        },
        Command::Serve(args) => args.job.secret.clone(),
        Command::Submit(args) => args.job.secret.clone(),
        _ => Vec::new(),
    }
}

fn job(command: &mut Command) -> Option<&mut JobArgs> {
    match command {
        Command::Run(args) => Some(&mut args.job),
        Command::Serve(args) => Some(&mut args.job),
        Command::Submit(args) => Some(&mut args.job),
        _ => None,
    }
}

/// Writes an unnamed file that the executed program inherits.
fn keep(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("secrets", MemfdFlags::empty())?);
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    fcntl_setfd(&file, FdFlags::empty())?;
    Ok(file.into())
}

/// Reads the values and empties the file. The descriptor stays open, but the file is empty.
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
