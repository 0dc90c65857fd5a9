use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use metaservice_private::Location;

use super::qemu::{OLDEST_QEMU, QemuVersion};
use super::report::{Finding, INSTALL_HINT};
use super::search::Search;

fn program(directory: &Path, name: &str, script: &str) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

fn qemu_name() -> String {
    format!("qemu-system-{}", env::consts::ARCH)
}

#[test]
fn versions() {
    let parse = |text| QemuVersion::parse(text).map(|version| (version.major, version.minor));
    assert_eq!(
        parse("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\n"),
        Some((7, 2))
    );
    assert_eq!(
        parse("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)"),
        Some((10, 0))
    );
    assert_eq!(parse("QEMU emulator version x"), None);
    assert_eq!(parse(""), None);
    assert!(OLDEST_QEMU < QemuVersion { major: 10, minor: 0 });
}

#[test]
fn an_old_qemu_on_the_path_is_passed_over_for_a_new_one_in_the_cache() {
    let directory = tempfile::tempdir().unwrap();
    program(&directory.path().join("path"), &qemu_name(), "echo QEMU emulator version 6.2.0");
    let mut search = Search { path: vec![directory.path().join("path")], ..Search::default() };
    let Finding::Missing { problem, hint } = search.report().qemu else { panic!("found") };
    assert!(problem.ends_with("is version 6.2, and 7.2 or newer is needed"), "{problem}");
    assert_eq!(hint, INSTALL_HINT);

    program(&directory.path().join("cache/bin"), &qemu_name(), "echo QEMU emulator version 8.1.0");
    search.cache = Some(directory.path().join("cache"));
    let report = search.report();
    let qemu = report.qemu.found().unwrap();
    assert_eq!(qemu.version, QemuVersion { major: 8, minor: 1 });
    assert!(qemu.path.starts_with(directory.path().join("cache")));

    search.qemu = Some(directory.path().join("none"));
    assert!(search.report().qemu.found().is_none(), "a named program is not replaced by another");
}

#[test]
fn everything_that_is_missing_is_named() {
    let missing = Search::default().report().require().unwrap_err();
    assert_eq!(missing.problems.len(), 3, "{missing}");
    assert_eq!(missing.hint, INSTALL_HINT);
    assert_eq!(Search::default().report().to_string().matches("missing").count(), 4);
}

#[test]
fn a_busybox_that_needs_libraries_is_refused() {
    let search = Search { busybox: Some(env::current_exe().unwrap()), ..Search::default() };
    let Finding::Missing { problem, .. } = search.report().busybox else { panic!("found") };
    assert!(problem.contains("static"), "{problem}");
}

#[test]
fn a_kernel_in_the_cache_is_found_by_its_version() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = directory.path().join("kernel/6.1.0");
    fs::create_dir_all(kernel.join("modules")).unwrap();
    fs::write(kernel.join("vmlinuz"), vec![0; 1000]).unwrap();
    let search = Search { cache: Some(directory.path().to_owned()), ..Search::default() };
    assert!(search.report().kernel.found().is_none());
    fs::write(kernel.join("modules/modules.dep"), "").unwrap();
    std::os::unix::fs::symlink("6.1.0", directory.path().join("kernel/current")).unwrap();
    let report = search.report();
    assert!(report.kernel.found().unwrap().image.ends_with("kernel/6.1.0/vmlinuz"));
    fs::write(kernel.join("vmlinuz"), "").unwrap();
    let Finding::Missing { problem, hint } = search.report().kernel else { panic!("found") };
    assert!(problem.ends_with("is damaged"), "{problem}");
    assert_eq!(hint, INSTALL_HINT);
}

#[test]
fn half_a_busybox_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("busybox");
    let whole = fs::read(env::current_exe().unwrap()).unwrap();
    for length in [0, 100, whole.len() / 2] {
        fs::write(&path, &whole[..length]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let search = Search { busybox: Some(path.clone()), ..Search::default() };
        let Finding::Missing { problem, .. } = search.report().busybox else { panic!("found") };
        assert!(problem.ends_with("is not a complete program"), "{length}: {problem}");
    }
}

#[test]
fn why_a_cache_is_not_used_is_said_with_what_is_missing() {
    let search = Search { cache_problem: Some("it is open".to_owned()), ..Search::default() };
    let missing = search.report().require().unwrap_err();
    assert!(missing.problems.iter().all(|problem| problem.ends_with("it is open")), "{missing}");
}

#[test]
fn a_named_kernel_finds_the_modules_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("my-kernel");
    let search = Search { kernel: Some(image.clone()), ..Search::default() };
    assert!(search.report().kernel.found().is_none());
    fs::write(&image, "").unwrap();
    assert_eq!(search.report().kernel.found().unwrap().modules, None);
    fs::create_dir(directory.path().join("modules")).unwrap();
    fs::write(directory.path().join("modules/modules.dep"), "").unwrap();
    assert_eq!(
        search.report().kernel.found().unwrap().modules,
        Some(directory.path().join("modules"))
    );
}

/// A program that counts its runs, and prints a version.
fn counting(directory: &Path, runs: &Path, version: &str) {
    let script = format!("echo run >> {}; echo QEMU emulator version {version}", runs.display());
    program(directory, &qemu_name(), &script);
}

#[test]
fn a_version_is_recorded_until_a_file_changes() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, runs) = (directory.path().join("cache"), directory.path().join("runs"));
    let installed = cache.join("qemu/usr/bin");
    program(&installed, &qemu_name(), "exit 1");
    let versions = Some(Location::At(directory.path().join("versions")));
    let search = Search { cache: Some(cache.clone()), versions, ..Search::default() };
    let found = || search.report().qemu.found().unwrap().version;
    let count = || fs::read_to_string(&runs).unwrap_or_default().lines().count();
    for (version, minor, expected) in [("8.1.0", 1, 1), ("8.2.0", 2, 2)] {
        counting(&cache.join("bin"), &runs, version);
        for _ in 0..3 {
            assert_eq!(found(), QemuVersion { major: 8, minor });
        }
        assert_eq!(count(), expected, "it runs once");
    }
    // Another process knows the version by the record alone.
    let script = cache.join("bin").join(qemu_name());
    super::qemu::forget(&script);
    assert_eq!((found().minor, count()), (2, 2));
    // The script is the same, and the program that it runs is another one.
    super::qemu::forget(&script);
    program(&installed, &qemu_name(), "exit 1 # another version");
    assert_eq!((found().minor, count()), (2, 3));
    let check = Search { versions: None, ..search.clone() };
    assert!(check.report().qemu.found().is_some());
    assert_eq!(count(), 4, "a check runs it");
}

#[test]
fn the_version_of_an_unknown_script_is_not_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let (path, runs) = (directory.path().join("path"), directory.path().join("runs"));
    counting(&path, &runs, "8.1.0");
    let versions = Some(Location::At(directory.path().join("versions")));
    let script = path.join(qemu_name());
    let search = Search { path: vec![path], versions, ..Search::default() };
    assert!(search.report().qemu.found().is_some());
    assert!(search.report().qemu.found().is_some());
    assert_eq!(fs::read_to_string(&runs).unwrap().lines().count(), 1, "one run in a process");
    super::qemu::forget(&script);
    assert!(search.report().qemu.found().is_some());
    assert_eq!(fs::read_to_string(&runs).unwrap().lines().count(), 2, "another process runs it");
}
