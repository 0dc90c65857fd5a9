//! Gives a restored machine its own identity. A snapshot can contain an agent that waits for a job,
//! and any number of machines can be restored from it.
//!
//! Owns the wait for a job, and the renewal after it: of the kernel's random state, the clock, the
//! host name, what the image's own program `/etc/metaservice/renew` renews, and this process. The
//! process execs itself, so that it keeps nothing in memory. An unprivileged agent renews what it
//! can.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use metaservice_private::replace_unsynced;
use metaservice_protocol::Renewal;
use rustix::ioctl::{NoArg, ioctl, opcode};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::backoff::Backoff;
use crate::client::Client;
use crate::client::error::ClientError;
use crate::diagnostics::{print, with_causes};
use crate::program::remove_unit_variables;

/// A clock that differs by less stays as it is, because the response took some time.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(5);

/// The kernel's limit for a host name.
const MAX_HOSTNAME: usize = 64;

/// Where an image stores its host name.
const HOSTNAME: &str = "/etc/hostname";

/// The image's own program, which creates new keys and ids.
const IMAGE_PROGRAM: &str = "/etc/metaservice/renew";

/// How long the image's program may take.
const IMAGE_PROGRAM_TIMEOUT: Duration = Duration::from_secs(45);

/// Waits until there is a job, renews the machine and execs this program again.
///
/// Returns only the error that prevented this, for example because the service has a job already.
pub(super) async fn wait_for_job(client: &Client) -> ClientError {
    let mut backoff = Backoff::new();
    let mut cut = false;
    loop {
        match client.renewal().await {
            Ok(renewal) => {
                renew(&renewal);
                run_image_program(Path::new(IMAGE_PROGRAM)).await;
                let error = ClientError::Connect(exec_again());
                print(&format!("the agent cannot exec itself: {}", with_causes(&error)));
                return error;
            }
            Err(error) if error.is_transport() => {
                // A restored machine finds its connection reset, and asks again at once.
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
        print(&format!("the random state is not renewed: {}", with_causes(&error)));
    }
    if let Err(error) = set_clock(Duration::from_nanos(renewal.time_ns)) {
        print(&format!("the clock is not set: {}", with_causes(&error)));
    }
    let name = renewal.hostname.as_deref().filter(|name| is_host_name(name));
    let Some(name) = name else { return };
    if let Err(errno) = rustix::system::sethostname(name.as_bytes()) {
        print(&format!("the host name is not set: {}", with_causes(&io::Error::from(errno))));
    } else if let Err(error) = write_hostname(Path::new(HOSTNAME), name) {
        print(&format!("{HOSTNAME} is not written: {}", with_causes(&error)));
    }
}

/// Replaces the image's stored host name, if it is a plain file.
fn write_hostname(path: &Path, name: &str) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    replace_unsynced(path, format!("{name}\n").as_bytes(), metadata.permissions().mode())
}

/// Runs the image's own program, if there is one.
async fn run_image_program(program: &Path) {
    if !program.exists() {
        return;
    }
    let mut command = Command::new(program);
    remove_unit_variables(&mut command).stdin(Stdio::null());
    let program = program.display();
    let running = tokio::task::spawn_blocking(move || command.status());
    match tokio::time::timeout(IMAGE_PROGRAM_TIMEOUT, running).await {
        Ok(Ok(Ok(status))) if status.success() => {}
        Ok(Ok(Ok(status))) => print(&format!("{program} failed: {status}")),
        Ok(Ok(Err(error))) => print(&format!("cannot run {program}: {}", with_causes(&error))),
        Ok(Err(error)) => print(&format!("cannot wait for {program}: {}", with_causes(&error))),
        Err(_) => {
            let seconds = IMAGE_PROGRAM_TIMEOUT.as_secs();
            print(&format!("{program} has not ended within {seconds} s"));
        }
    }
}

/// Adds random bits to the kernel's pool, and makes its generator take a new key from there.
/// Without the second step the kernel would use its old key for up to a minute.
fn reseed(random: &[u8]) -> io::Result<()> {
    const RESEED: rustix::ioctl::Opcode = opcode::none(b'R', 7);
    let mut device = File::options().write(true).open("/dev/urandom")?;
    device.write_all(random)?;
    // SAFETY: RNDRESEEDCRNG takes no argument and returns nothing but an error.
    unsafe { ioctl(&device, NoArg::<RESEED>::new()) }?;
    Ok(())
}

/// Sets the clock to the time since 1970, if that is known and differs.
fn set_clock(now: Duration) -> io::Result<()> {
    let current = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    if now.is_zero() || now.abs_diff(current) < CLOCK_TOLERANCE {
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

/// Execs this program with the same arguments. Returns only an error.
fn exec_again() -> io::Error {
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
    async fn the_images_program_runs_to_its_end_and_its_status_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let (program, mark) = (directory.path().join("renew"), directory.path().join("mark"));
        run_image_program(&program).await;
        std::fs::write(&program, format!("#!/bin/sh\necho done > {}\nexit 3\n", mark.display()))
            .unwrap();
        run_image_program(&program).await;
        assert!(!mark.exists(), "it is not executable yet");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        run_image_program(&program).await;
        assert_eq!(std::fs::read_to_string(mark).unwrap(), "done\n");
    }

    #[test]
    fn the_images_host_name_is_replaced_if_it_has_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hostname");
        write_hostname(&path, "job-1").unwrap();
        assert!(!path.exists(), "an image without the file gets none");
        fs::write(&path, "prepare-77\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write_hostname(&path, "job-1").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "job-1\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_hostname(&link, "job-2").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "job-1\n", "a link is left alone");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_host_name_has_only_letters_digits_hyphens_and_dots() {
        assert!(is_host_name("job-1.example"));
        for other in ["", "a b", "a\n", "\u{e9}", &"x".repeat(65)] {
            assert!(!is_host_name(other), "{other:?}");
        }
    }

    #[test]
    fn a_right_clock_and_an_unknown_time_change_nothing() {
        // An unprivileged attempt to set the clock would fail.
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        set_clock(now).unwrap();
        set_clock(Duration::ZERO).unwrap();
    }
}
