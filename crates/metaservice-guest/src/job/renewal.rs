//! Gives a restored machine its own identity. A snapshot can contain an agent that waits for a job,
//! and any number of machines can be restored from it.
//!
//! Owns the wait for a job, and the renewal after it: of the kernel's random state, the clock, the
//! host name, what the image's own program `/etc/metaservice/renew` renews, and this process. The
//! process execs itself, so that it keeps nothing in memory. An unprivileged agent renews what it
//! can.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use metaservice_protocol::Renewal;
use rustix::ioctl::{NoArg, ioctl, opcode};
use rustix::time::{ClockId, Timespec, clock_settime};

use super::rehearsal::rehearse_until;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::client::error::ClientError;
use crate::diagnostics::{print, with_causes};
use crate::program::remove_unit_variables;
use crate::state::StateDirectory;
use crate::system::host_name;

/// A clock that differs by less stays as it is, because the response took some time.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(5);

/// The image's own program, which creates new keys and ids.
const IMAGE_PROGRAM: &str = "/etc/metaservice/renew";

/// How long the image's program may take.
const IMAGE_PROGRAM_TIMEOUT: Duration = Duration::from_secs(45);

/// Waits until there is a job, renews the machine and execs this program again. A machine that was
/// restored rehearses the job while it waits.
///
/// Returns only the error that prevented this, for example because the service has a job already.
pub(super) async fn wait_for_job(client: &Client, state: &StateDirectory) -> ClientError {
    let mut backoff = Backoff::new();
    let (mut cut, mut rehearsed) = (false, false);
    loop {
        let asked = client.renewal();
        let answer = if cut && !std::mem::replace(&mut rehearsed, true) {
            rehearse_until(asked, state).await
        } else {
            asked.await
        };
        match answer {
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
    if let Some(name) = &renewal.hostname {
        host_name::set(name);
    }
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
    fn a_right_clock_and_an_unknown_time_change_nothing() {
        // An unprivileged attempt to set the clock would fail.
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        set_clock(now).unwrap();
        set_clock(Duration::ZERO).unwrap();
    }
}
