//! Removes the values of secrets from the environment of this process.
//!
//! This module owns the way of the values into the job. The initial environment of a process stays
//! readable in `/proc/PID/environ` for all processes of the user, even if the process removes its
//! variables. Therefore the tool executes itself again without them, under the same process id.
//!
//! The values are passed in an unnamed file, with the text of `--spec`, which may be a pipe. Only
//! this process has it open, and it empties the file after reading.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

use crate::cli::Cli;
use crate::commands::Command;
use crate::description;
use crate::flags::JobArgs;

/// The variable with the number of the descriptor of the values.
const VARIABLE: &str = "METASERVICE_SECRETS";

/// The maximum length of the file, in bytes. The kernel accepts no larger environment, and JSON
/// makes a description of 8 MiB at most twice as long.
const MAX_LENGTH: u64 = 32 << 20;

/// What the executed program gets.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    secrets: BTreeMap<String, String>,
    /// The text of `--spec`.
    spec: Option<String>,
}

/// Removes the values from the environment. If there are any, this executes the tool again, which
/// then calls this function again and reads the values.
pub(crate) fn withdraw(cli: &mut Cli) -> io::Result<()> {
    if let Some(descriptor) = std::env::var_os(VARIABLE) {
        // A number only: another path would be opened and emptied.
        let descriptor = descriptor.to_str().and_then(|text| text.parse::<u32>().ok());
        let descriptor = descriptor.ok_or(io::ErrorKind::InvalidInput)?;
        let kept = take(&Path::new("/proc/self/fd").join(descriptor.to_string()))?;
        if let Command::Run(args) = &mut cli.command {
            args.spec_text = kept.spec.map(String::into_bytes);
        }
        if let Some(job) = job(&mut cli.command) {
            job.withdrawn = kept.secrets;
        }
        return Ok(());
    }
    let mut spec = None;
    if let Command::Run(args) = &mut cli.command
        && let Some(file) = &args.spec
        // An error is for the command, which reads it again.
        && let Ok(text) = description::text_of(file)
    {
        spec = String::from_utf8(text.clone()).ok();
        args.spec_text = Some(text);
    }
    let names = names(&cli.command);
    let secrets: BTreeMap<String, String> = names
        .into_iter()
        .filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)))
        .collect();
    if secrets.is_empty() {
        return Ok(());
    }
    let kept = Kept { secrets, spec };
    let file = keep(&serde_json::to_vec(&kept)?)?;
    let mut arguments = std::env::args_os();
    let mut again = process::Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    again.args(arguments).env(VARIABLE, file.as_raw_fd().to_string());
    for name in kept.secrets.keys() {
        again.env_remove(name);
    }
    // `exec` returns only on error.
    Err(again.exec())
}

/// Returns the names of the secrets in the flags or the description.
fn names(command: &Command) -> Vec<String> {
    match command {
        Command::Run(args) => match &args.spec_text {
            Some(text) => description::secrets_of(text),
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
fn take(file: &Path) -> io::Result<Kept> {
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
        let secrets = [("A".to_owned(), "1".to_owned())].into();
        let both = Kept { secrets, spec: Some("{}".to_owned()) };
        let kept = keep(&serde_json::to_vec(&both).unwrap()).unwrap();
        let path = format!("/proc/self/fd/{}", kept.as_raw_fd());
        assert_eq!(take(Path::new(&path)).unwrap(), both);
        assert!(take(Path::new(&path)).is_err());
    }
}
