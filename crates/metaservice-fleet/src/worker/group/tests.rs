use super::*;

fn name(text: &str) -> WorkerName {
    text.parse().unwrap()
}

/// A directory with the files that the kernel has in a cgroup.
fn cgroup(controllers: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("cgroup.controllers"), controllers).unwrap();
    fs::write(directory.path().join("cgroup.procs"), "").unwrap();
    directory
}

#[test]
fn a_weight_follows_the_processors_and_the_class() {
    assert_eq!(weight(Priority::Normal, 1), 100);
    assert_eq!(weight(Priority::High, 2), 800);
    assert_eq!(weight(Priority::Low, 1), 25);
    assert_eq!(weight(Priority::High, 64), 10_000);
    assert_eq!(weight(Priority::Low, u32::MAX), 10_000);
    assert_eq!(weight(Priority::Low, 0), 1);
}

#[test]
fn the_own_group_is_below_the_mount_that_shows_it() {
    let v1 = "33 24 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
    let v2 = "34 24 0:30 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
    let part = "35 24 0:30 /a/b /part rw - cgroup2 none rw\n";
    let own = |groups: &str, mounts: &str| {
        own_group(groups, mounts).map(|path| path.to_str().unwrap().to_owned())
    };
    let found = own("1:cpu:/other\n0::/a/b/c\n", &format!("{v1}{v2}"));
    assert_eq!(found.as_deref(), Some("/sys/fs/cgroup/unified/a/b/c"));
    assert_eq!(own("0::/\n", v2).as_deref(), Some("/sys/fs/cgroup/unified"));
    assert_eq!(own("0::/a/b/c\n", part).as_deref(), Some("/part/c"));
    assert_eq!(own("0::/a/bc\n", part), None);
    assert_eq!(own("0::/../a\n", v2), None);
    assert_eq!(own("0::/a\n", v1), None);
    assert_eq!(own("1:cpu:/a\n", v2), None);
}

#[test]
fn the_worker_moves_to_a_group_of_its_own() {
    let directory = cgroup("cpuset cpu io\n");
    let base = directory.path();
    let of = |file: &str| fs::read_to_string(base.join(file)).unwrap();
    let groups = Groups::take(base, 4711, &name("w")).unwrap();
    assert_eq!(of("worker/cgroup.procs"), "4711");
    assert_eq!(of("worker/cpu.weight"), "10000");
    assert_eq!(of("cgroup.subtree_control"), "+cpu");

    // One that is there already stays there.
    let again = Groups::take(&base.join("worker"), 4712, &name("w")).unwrap();
    assert_eq!((again.base, of("worker/cgroup.procs")), (groups.base, "4712".to_owned()));
}

#[test]
fn without_the_controller_nothing_changes() {
    let directory = cgroup("cpuset io\n");
    let refused = Groups::take(directory.path(), 4711, &name("w"));
    assert!(matches!(refused, Err(GroupsError::NoController(_))), "{refused:?}");
    assert!(!directory.path().join("worker").exists());
}

#[test]
fn a_worker_that_cannot_have_the_controller_moves_back() {
    let directory = cgroup("cpu\n");
    // As if other processes were in it.
    fs::create_dir(directory.path().join("cgroup.subtree_control")).unwrap();
    let refused = Groups::take(directory.path(), 4711, &name("w"));
    assert!(matches!(refused, Err(GroupsError::Files { .. })), "{refused:?}");
    assert_eq!(fs::read_to_string(directory.path().join("cgroup.procs")).unwrap(), "4711");
}

#[tokio::test]
async fn an_attempt_has_a_group_until_it_is_closed() {
    let directory = cgroup("cpu\n");
    let groups = Groups::take(directory.path(), 4711, &name("w")).unwrap();
    let group = groups.group(&"a".parse().unwrap(), 2, 400).unwrap();
    let path = directory.path().join("job.w.a.2");
    assert_eq!(group.directory(), path);
    assert_eq!(fs::read_to_string(path.join("cpu.weight")).unwrap(), "400");
    // The kernel removes the files with the group.
    fs::remove_file(path.join("cpu.weight")).unwrap();
    group.close().await;
    assert!(!path.exists());
}

#[test]
fn a_worker_removes_what_one_of_its_name_left() {
    let directory = cgroup("cpu\n");
    let groups = Groups::take(directory.path(), 4711, &name("w")).unwrap();
    let all = ["job.w.a.1", "job.w.b.2", "job.w2.a.1", "other"].map(|n| directory.path().join(n));
    all.iter().for_each(|path| fs::create_dir(path).unwrap());
    groups.remove_left();
    assert_eq!(all.map(|path| path.exists()), [false, false, true, true]);
}
