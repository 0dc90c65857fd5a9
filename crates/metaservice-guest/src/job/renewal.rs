//! Becoming somebody else: an agent that waits for a job may be saved with its machine, and
//! go on as any number of machines.
//!
//! Owns the wait, and what is to be replaced when it ends: the kernel's random state, the clock,
//! the name, what the image itself knows to be one machine's alone, and this process, which starts
//! anew with nothing of its memory. Each of them is best effort but the last: an agent without
//! rights renews what it can.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use metaservice_private::replace;
use metaservice_protocol::Renewal;
use rustix::ioctl::{NoArg, ioctl, opcode};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::backoff::Backoff;
use crate::client::{Client, ClientError};
use crate::diagnostics::{chain, say};
use crate::program::hide_unit;

/// A clock that differs by less is left alone: the answer took some time to come.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(5);

/// The most characters of a name: what the kernel takes.
const MAX_HOSTNAME: usize = 64;

/// Where an image keeps its host name.
const HOSTNAME: &str = "/etc/hostname";

/// The image's own part: a program that makes keys and ids anew.
const OWN_PART: &str = "/etc/metaservice/renew";

/// How long that may take.
const OWN_PATIENCE: Duration = Duration::from_secs(45);

/// Waits until there is a job, and starts this program anew. Returns only what went wrong: the
/// service says that there is nothing to be waited for.
pub(crate) async fn wait(client: &Client) -> ClientError {
    let mut backoff = Backoff::new();
    let mut cut = false;
    loop {
        match client.renewal().await {
            Ok(renewal) => {
                renew(&renewal);
                renew_image(Path::new(OWN_PART)).await;
                let error = ClientError::Connect(again());
                say(&format!("the agent cannot start anew: {}", chain(&error)));
                return error;
            }
            Err(error) if error.is_transport() => {
                // The first cut is how a machine learns that it is another one now.
                if std::mem::replace(&mut cut, true) {
                    tokio::time::sleep(backoff.delay()).await;
                }
            }
            Err(error) => return error,
        }
    }
}

fn renew(renewal: &Renewal) {
    if let Err(error) = reseed(renewal.random.as_bytes()) {
        say(&format!("the random state is not renewed: {}", chain(&error)));
    }
    if let Err(error) = set_clock(Duration::from_nanos(renewal.time_ns)) {
        say(&format!("the clock is not set: {}", chain(&error)));
    }
    let name = renewal.hostname.as_deref().filter(|name| is_host_name(name));
    let Some(name) = name else { return };
    if let Err(errno) = rustix::system::sethostname(name.as_bytes()) {
        say(&format!("the host name is not set: {}", chain(&io::Error::from(errno))));
    } else if let Err(error) = write_hostname(Path::new(HOSTNAME), name) {
        say(&format!("{HOSTNAME} is not written: {}", chain(&error)));
    }
}

/// Writes the name where the image keeps it, if it keeps one: a plain file, replaced as a whole.
fn write_hostname(path: &Path, name: &str) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    replace(path, format!("{name}\n").as_bytes(), metadata.permissions().mode())
}

/// Has the image do its part, if it has one.
async fn renew_image(program: &Path) {
    if !program.exists() {
        return;
    }
    let mut command = Command::new(program);
    hide_unit(&mut command).stdin(Stdio::null());
    let program = program.display();
    let running = tokio::task::spawn_blocking(move || command.status());
    match tokio::time::timeout(OWN_PATIENCE, running).await {
        Ok(Ok(Ok(status))) if status.success() => {}
        Ok(Ok(Ok(status))) => say(&format!("{program} failed: {status}")),
        Ok(Ok(Err(error))) => say(&format!("{program} cannot be run: {}", chain(&error))),
        Ok(Err(error)) => say(&format!("{program} cannot be waited for: {}", chain(&error))),
        Err(_) => say(&format!("{program} has not ended within {} s", OWN_PATIENCE.as_secs())),
    }
}

/// Mixes the bits into the kernel's pool and has its generator take a new key from there: by
/// itself it would do so within a minute.
fn reseed(random: &[u8]) -> io::Result<()> {
    const RESEED: rustix::ioctl::Opcode = opcode::none(b'R', 7);
    let mut device = File::options().write(true).open("/dev/urandom")?;
    device.write_all(random)?;
    // SAFETY: RNDRESEEDCRNG takes no argument and gives no result but an error.
    unsafe { ioctl(&device, NoArg::<RESEED>::new()) }?;
    Ok(())
}

fn set_clock(now: Duration) -> io::Result<()> {
    let ours = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    if now.is_zero() || now.abs_diff(ours) < CLOCK_TOLERANCE {
        return Ok(());
    }
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
    let tv_sec = now.as_secs().try_into().map_err(invalid)?;
    clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec: now.subsec_nanos().into() })?;
    Ok(())
}

fn is_host_name(name: &str) -> bool {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    !name.is_empty() && name.len() <= MAX_HOSTNAME && name.bytes().all(fit)
}

/// Replaces this process by a new one of the same program and arguments.
fn again() -> io::Error {
    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).exec()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn the_images_part_is_run_to_its_end_and_whatever_it_does_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let (program, mark) = (folder.path().join("renew"), folder.path().join("mark"));
        renew_image(&program).await;
        std::fs::write(&program, format!("#!/bin/sh\necho done > {}\nexit 3\n", mark.display()))
            .unwrap();
        renew_image(&program).await;
        assert!(!mark.exists(), "it is no program yet");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        renew_image(&program).await;
        assert_eq!(std::fs::read_to_string(mark).unwrap(), "done\n");
    }

    #[test]
    fn the_images_host_name_is_replaced_where_it_keeps_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hostname");
        write_hostname(&path, "job-1").unwrap();
        assert!(!path.exists(), "an image that keeps no name has none");
        fs::write(&path, "prepare-77\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write_hostname(&path, "job-1").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "job-1\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_hostname(&link, "job-2").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "job-1\n", "a link is left alone");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn only_a_name_is_a_name() {
        assert!(is_host_name("job-1.example"));
        for other in ["", "a b", "a\n", "\u{e9}", &"x".repeat(65)] {
            assert!(!is_host_name(other), "{other:?}");
        }
    }

    #[test]
    fn a_clock_that_is_right_and_a_service_that_does_not_know_change_nothing() {
        // Without rights an attempt would fail.
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        set_clock(now).unwrap();
        set_clock(Duration::ZERO).unwrap();
    }
}
