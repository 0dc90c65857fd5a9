//! Volumes: directories of the host that the agent mounts before the command starts.
//!
//! Owns the mounts of a job. A volume at `/` becomes the root of the agent and of everything that
//! it starts. The other volumes are mounted after it, in the order of the job. All of them stay
//! until the machine ends. An agent that is restarted finds them in place.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `share` | a 9p device, and the driver that it needs |
//! | `layer` | an overlay in memory over a share |

mod error;
mod layer;
mod share;

use std::path::Path;
use std::time::Duration;

use metaservice_protocol::{Volume, VolumeMode};
use rustix::mount::{UnmountFlags, unmount};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use self::error::VolumeError;
use self::layer::Layers;
use crate::diagnostics::with_causes;
use crate::state::StateDirectory;
use crate::system::root::{NEW_ROOT, SCRATCH, enter};

/// How long the host may take to store what was written to volumes.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a later job in the same machine cannot have volumes of its own.
const OTHER_JOB: &str = "cannot mount the volumes: this machine has those of another job";

/// Mounts the volumes of a job, unless an earlier agent did. The error is a sentence for people.
pub(crate) async fn mount(volumes: &[Volume], state: &StateDirectory) -> Result<(), String> {
    match state.volumes() {
        Some(mounted) if volumes.is_empty() || mounted == volumes => return Ok(()),
        Some(_) => return Err(OTHER_JOB.to_owned()),
        None => {}
    }
    let (volumes, state) = (volumes.to_owned(), state.clone());
    let mounted = spawn_blocking(move || mount_all(&volumes, &state)).await;
    mounted.unwrap_or_else(|_| Err("the agent cannot mount its volumes".to_owned()))
}

fn mount_all(volumes: &[Volume], state: &StateDirectory) -> Result<(), String> {
    if volumes.is_empty() {
        release_scratch();
        return Ok(());
    }
    let failed = |path: &str| {
        let path = path.to_owned();
        move |error: VolumeError| {
            format!("cannot mount the volume at {path}: {}", with_causes(&error))
        }
    };
    let (root, others): (Vec<_>, Vec<_>) = volumes.iter().partition(|volume| volume.path == "/");
    let first = volumes.first().map_or("/", |volume| &volume.path);
    if !rustix::process::geteuid().is_root() {
        return Err(failed(first)(VolumeError::NotRoot));
    }
    let layered = volumes.iter().any(|volume| volume.mode == VolumeMode::Overlay);
    let mut layers = Layers::default();
    if layered {
        layers = Layers::open(!root.is_empty(), state.path()).map_err(failed(first))?;
    }
    for volume in root {
        layers.mount_root(&volume.tag, Path::new(NEW_ROOT)).map_err(failed("/"))?;
        enter().map_err(VolumeError::Root).map_err(failed("/"))?;
    }
    for volume in others {
        mount_one(volume, &mut layers).map_err(failed(&volume.path))?;
    }
    if !layered {
        release_scratch();
    }
    state.set_volumes(volumes).map_err(|error| with_causes(&error).to_string())
}

fn mount_one(volume: &Volume, layers: &mut Layers) -> Result<(), VolumeError> {
    let at = Path::new(&volume.path);
    std::fs::create_dir_all(at)
        .map_err(|source| VolumeError::Directory { path: volume.path.clone(), source })?;
    match volume.mode {
        VolumeMode::Overlay => layers.mount(&volume.tag, at),
        mode => share::mount(&volume.tag, at, mode == VolumeMode::ReadWrite),
    }
}

/// Removes the mount of the init's files in memory, which the job does not need. They stay where
/// they are mounted too. The machine of another init has no such mount.
fn release_scratch() {
    if unmount(SCRATCH, UnmountFlags::NOFOLLOW).is_ok() {
        let _ = std::fs::remove_dir(SCRATCH);
    }
}

/// Waits until the host has what the job wrote to its volumes.
pub(crate) async fn sync(volumes: &[Volume]) {
    let written = volumes.iter().filter(|volume| volume.mode == VolumeMode::ReadWrite);
    let paths: Vec<_> = written.map(|volume| volume.path.clone()).collect();
    if paths.is_empty() {
        return;
    }
    let syncing = spawn_blocking(move || {
        let files = paths.iter().filter_map(|path| std::fs::File::open(path).ok());
        for file in files {
            // What the host cannot store, the command would have found out by fsync.
            let _ = rustix::fs::syncfs(file);
        }
    });
    let _ = timeout(SYNC_TIMEOUT, syncing).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_later_job_does_not_get_the_volumes_of_another_one() {
        let parent = tempfile::tempdir().unwrap();
        let (state, _lock) = StateDirectory::open(Some(parent.path().join("state"))).unwrap();
        let volume = |path: &str| Volume {
            tag: "metaservice0".to_owned(),
            path: path.to_owned(),
            mode: VolumeMode::ReadOnly,
        };
        state.set_volumes(&[volume("/src")]).unwrap();
        assert_eq!(mount(&[volume("/src")], &state).await, Ok(()));
        assert_eq!(mount(&[], &state).await, Ok(()));
        assert_eq!(mount(&[volume("/other")], &state).await, Err(OTHER_JOB.to_owned()));
    }
}
