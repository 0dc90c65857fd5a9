use std::collections::BTreeSet;
use std::fs;

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::confinement::{Confinement, Layer};
use super::hold::hold;
use super::mounts::Mount;
use super::needs::{Exported, Needs};
use super::steps;
use crate::machine::process::Process;
use crate::spec::boundary::Boundary;

const ROOTS: Boundary =
    Boundary { namespaces: true, privileged: true, landlock: true, signals: true };
const USERS: Boundary =
    Boundary { namespaces: true, privileged: false, landlock: true, signals: true };
const RULES: Boundary =
    Boundary { namespaces: false, privileged: false, landlock: true, signals: true };

fn needs(read: &Path, written: &Path) -> Needs {
    Needs {
        program: "/bin/sh".into(),
        devices: vec!["/dev/null".into()],
        reads: vec![read.to_owned()],
        writes: vec![written.to_owned()],
        exported: Vec::new(),
        empty: None,
    }
}

/// The stderr and the exit code of a confined shell.
async fn said(needs: &Needs, host: Boundary, script: &str) -> (Option<i32>, String) {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).env_clear().env("PATH", "/usr/bin:/bin");
    let mut confinement = Confinement::of(needs, host).unwrap();
    let kept = confinement.take_descriptors();
    let process = Process::start(command, kept, confinement).await.unwrap();
    let status = process.ended().await.unwrap().code();
    (status, process.stderr().shown())
}

/// The ways that this host can confine a process. The tests need not run as root.
fn ways() -> Vec<Boundary> {
    let here = Boundary::of_host();
    let possible = |way: &Boundary| {
        (here.privileged || !way.privileged)
            && (here.namespaces || !way.namespaces)
            && (here.landlock || way.namespaces)
    };
    [ROOTS, USERS, RULES].into_iter().filter(possible).collect()
}

#[tokio::test]
async fn what_is_needed_is_there_and_nothing_else() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| directory.path().canonicalize().unwrap().join(name);
    for name in ["read", "other", "written"] {
        fs::write(path(name), "content").unwrap();
    }
    let (read, other, written) = (path("read"), path("other"), path("written"));
    let script = format!(
        "cat {0} >&2 && echo new > {1} && ! cat {2} && ! echo x > {0} && ! echo x > {3} && \
         ! cat /etc/passwd && echo discarded > /dev/null && echo kept >&2",
        read.display(),
        written.display(),
        other.display(),
        path("new").display(),
    );
    for way in ways() {
        let (status, said) = said(&needs(&read, &written), way, &script).await;
        assert_eq!(status, Some(0), "{way:?}: {said}");
        assert!(said.starts_with("content") && said.ends_with("kept"), "{way:?}: {said}");
        assert_eq!(fs::read_to_string(&written).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(&read).unwrap(), "content");
    }
}

#[tokio::test]
async fn nothing_is_left_of_the_callers_rights_and_descriptors() {
    let (reader, _writer) = std::io::pipe().unwrap();
    // Like a pipe that a shell leaves to its children.
    rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::empty()).unwrap();
    let script = "grep -E '^(CapEff|CapPrm|NoNewPrivs)' /proc/self/status >&2 || true; \
                  for fd in /proc/self/fd/*; do echo ${fd##*/} >&2; done";
    let nowhere = Path::new("/dev/null");
    for way in ways() {
        let (_, said) = said(&needs(nowhere, nowhere), way, script).await;
        let number = reader.as_raw_fd().to_string();
        assert!(!said.lines().any(|line| line == number), "{way:?}: {said}");
    }
}

#[tokio::test]
async fn no_signal_reaches_a_process_outside() {
    if !Boundary::of_host().signals {
        return;
    }
    let nowhere = Path::new("/dev/null");
    let script = format!("kill -0 $$ && ! kill -0 {} && echo kept >&2", std::process::id());
    for way in ways() {
        let (status, said) = said(&needs(nowhere, nowhere), way, &script).await;
        assert_eq!(status, Some(0), "{way:?}: {said}");
        assert!(said.ends_with("kept"), "{way:?}: {said}");
    }
}

#[tokio::test]
async fn a_step_that_fails_is_named() {
    let gone = Path::new("/var/tmp/metaservice-no-such-file");
    let way = USERS;
    if !ways().contains(&way) {
        return;
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "true"]);
    let confinement = Confinement::of(&needs(gone, gone), way);
    // The file is missing when the steps are made, or when they are taken.
    let error = match confinement {
        Ok(confinement) => Process::start(command, Vec::new(), confinement).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(error.to_string().starts_with("cannot confine QEMU"), "{error}");
}

#[test]
fn the_layers_are_as_the_table_says() {
    let nothing =
        Boundary { namespaces: false, privileged: false, landlock: false, signals: false };
    let no_landlock = Boundary { landlock: false, ..USERS };
    for (host, machine, directory) in [
        (ROOTS, Layer::Namespaces, Layer::Namespaces),
        (USERS, Layer::Namespaces, Layer::Landlock),
        (RULES, Layer::Landlock, Layer::Landlock),
        (no_landlock, Layer::Namespaces, Layer::None),
        (nothing, Layer::None, Layer::None),
    ] {
        assert_eq!(
            (Layer::of(host, false), Layer::of(host, true)),
            (machine, directory),
            "{host:?}"
        );
    }
    assert!(ROOTS.is_complete() && USERS.is_complete() && RULES.is_complete());
    assert!(!no_landlock.is_complete() && !nothing.is_complete());
}

#[test]
fn a_directory_that_is_held_has_its_mounts_on_top() {
    if !Boundary::of_host().namespaces {
        return;
    }
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let directory = directory.path().canonicalize().unwrap();
    for name in ["hidden", "seen"] {
        fs::create_dir(directory.join(name)).unwrap();
        fs::write(directory.join(name).join("file"), name).unwrap();
    }
    let gone = Mount { at: directory.join("gone"), shown: false };
    let exported = Exported {
        directory: directory.clone(),
        writable: false,
        hidden: vec![directory.join("hidden")],
        mounts: vec![gone],
    };
    let exported = [Some(exported), None];
    let held = hold(false, steps::of_exports(&exported).unwrap(), steps::EXPORT).unwrap();
    let base = PathBuf::from(format!("/proc/self/fd/{}", held.directory.as_raw_fd()));
    let here = base.join("0");
    assert_eq!(fs::read_dir(base.join("1")).unwrap().count(), 0);
    let names = |at: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(at).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    assert_eq!(fs::read_to_string(here.join("seen/file")).unwrap(), "seen");
    assert!(names(&here.join("hidden")).is_empty());
    let written = fs::write(here.join("seen/new"), "x").unwrap_err();
    assert_eq!(written.kind(), io::ErrorKind::ReadOnlyFilesystem);
}
