//! What a guest, and a QEMU that it has broken into, can see of the host. Each test runs as the
//! user who runs the tests. If that is root, it also runs as an ordinary user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guest::{hear, start, with_modules, with_script};
use metaservice_qemu::{Boundary, ModuleNeed, Share, Visibility};

/// A user id that usual hosts do not have.
const USER: u32 = 61_183;

/// Runs the test with this name as an ordinary user, with tools that the user can read.
fn again_as_a_user(test: &str) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let home = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = home("XDG_CACHE_HOME").or_else(|| Some(home("HOME")?.join(".cache"))).unwrap();
    for name in ["cache/metaservice", "tmp"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    for name in ["bin", "kernel", "qemu"] {
        let from = cache.join("metaservice").join(name);
        let copied = Command::new("cp").arg("-R").arg(from).arg(path("cache/metaservice")).status();
        assert!(copied.unwrap().success());
    }
    fs::copy(std::env::current_exe().unwrap(), path("test")).unwrap();
    for name in ["cache/metaservice", "tmp"] {
        chown(path(name), Some(USER), Some(USER)).unwrap();
    }
    let output = Command::new(path("test"))
        .args(["--exact", test, "--nocapture"])
        .uid(USER)
        .gid(USER)
        .current_dir("/")
        .env("HOME", path("tmp"))
        .env("XDG_CACHE_HOME", path("cache"))
        .env("TMPDIR", path("tmp"))
        .env("METASERVICE_TEST_CACHE", path("tmp"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let more = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{more}");
}

#[tokio::test]
async fn qemu_keeps_no_rights_and_sees_nothing_that_it_does_not_need() {
    let machine = start(with_script("echo up; while read line; do poweroff -f; done")).await;
    hear(&machine, "up").await;
    let process = Path::new("/proc").join(machine.process_id().to_string());
    let status = fs::read_to_string(process.join("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().to_owned()
    };
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("CapEff:"), "0000000000000000");
    assert_eq!(field("CapBnd:"), "0000000000000000", "{status}");
    assert!(Boundary::of_host().is_complete(), "{}", Boundary::of_host());
    for kind in ["mnt", "net", "ipc", "user"] {
        let of = |process: &Path| fs::read_link(process.join("ns").join(kind)).unwrap();
        assert_ne!(of(&process), of(Path::new("/proc/self")), "{kind}");
    }
    let root = process.join("root");
    let inside = |path: &str| root.join(path).exists();
    assert!(inside("usr") && inside("dev/null"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").trim_start_matches('/');
    for path in [source, "home", "etc/passwd", "proc/1", "sys", "dev/mem", "run", ".host"] {
        assert!(!inside(path), "{path}");
    }
    let mounts = fs::read_to_string(process.join("mountinfo")).unwrap();
    let writable: Vec<&str> = mounts
        .lines()
        .filter(|line| line.split(' ').nth(5).is_some_and(|options| options.starts_with("rw")))
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|at| !at.starts_with("/dev/") && *at != "/proc/self/fd")
        .collect();
    assert_eq!(writable, Vec::<&str>::new());
    machine.kill().await;
    again_as_a_user("boundary::qemu_keeps_no_rights_and_sees_nothing_that_it_does_not_need");
}

/// The host's root directory, shared with a guest that mounts it as it likes.
#[tokio::test]
async fn a_hostile_guest_finds_no_other_file_systems_and_no_secrets_under_the_root() {
    let seen = tempfile::tempdir_in("/var/tmp").unwrap();
    let temporary = tempfile::tempdir_in("/tmp").unwrap();
    let shared = Path::new("/dev/shm").join(format!("metaservice-{}", std::process::id()));
    for path in [&shared, &seen.path().join("file"), &temporary.path().join("file")] {
        fs::write(path, "host's own\n").unwrap();
    }
    fs::create_dir(seen.path().join("keys")).unwrap();
    fs::write(seen.path().join("keys/key"), "host's own\n").unwrap();
    fs::write(seen.path().join("secret"), "host's own\n").unwrap();
    let here = seen.path().display();
    let script = format!(
        "
for cache in none loose; do
  mkdir /$cache
  mount -t 9p -o trans=virtio,version=9p2000.L,cache=$cache metaservice0 /$cache
  cd /$cache
  echo seen $cache $(cat .{here}/file) $(stat -c %u ./usr/bin/env)
  for path in .{here}/keys/key .{here}/secret ./etc/shadow .{shared} .{temporary}/file \
    ./proc/1/environ ./proc/self/mem ./proc/cpuinfo ./sys/kernel/uevent_seqnum ./dev/null \
    ./proc/../proc/version; do
    [ -z \"$(head -c 9 $path 2>/dev/null)\" ] || echo found $path
  done
  echo listed $cache $(ls ./proc ./sys ./dev ./run ./tmp .{here}/keys 2>/dev/null | grep -v : | wc -w)
  cd /; umount /$cache
done
echo through; while read line; do poweroff -f; done
",
        shared = shared.display(),
        temporary = temporary.path().display(),
    );
    let visibility =
        Visibility::new().hide(seen.path().join("keys")).hide(seen.path().join("secret"));
    let spec = with_modules(&script, &[ModuleNeed::SharedDirectory])
        .share(Share::new("/").root())
        .visibility(visibility);
    let machine = start(spec).await;
    hear(&machine, "through").await;
    let said = machine.console().tail(100);
    let owner = fs::metadata("/usr/bin/env").unwrap().uid();
    for cache in ["none", "loose"] {
        for line in [format!("seen {cache} host's own {owner}"), format!("listed {cache} 0")] {
            assert!(said.contains(&line), "{line}: {said:#?}");
        }
    }
    assert!(!said.iter().any(|line| line.starts_with("found")), "{said:#?}");
    machine.kill().await;
    fs::remove_file(&shared).unwrap();
    again_as_a_user(
        "boundary::a_hostile_guest_finds_no_other_file_systems_and_no_secrets_under_the_root",
    );
}

/// A writable share, by a guest that is root and mounts it as it likes.
#[tokio::test]
async fn a_hostile_guest_makes_nothing_but_files_in_a_writable_share() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let share = directory.path().join("share");
    fs::create_dir_all(share.join("keys")).unwrap();
    fs::create_dir(share.join("idle")).unwrap();
    let work = share.join("work");
    fs::create_dir(&work).unwrap();
    fs::write(directory.path().join("secret"), "host's own\n").unwrap();
    fs::write(share.join("keys/key"), "host's own\n").unwrap();
    std::os::unix::fs::symlink("../../secret", work.join("link")).unwrap();
    let script = format!(
        "
mkdir /s /idle
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none metaservice0 /s
cd /s/work
mkdir made; echo fine > made/file; chmod 640 made/file; chown 4:5 made/file && echo given away
mknod null c 1 3; mknod disk b 253 0; cp /bin/busybox made/su; chmod 4755 made/su
chmod 2755 made/su; ln -s {outside} out; ln made/file hard; mv made/file made/moved
cat link out/secret ../keys/key; echo lost > link; echo lost > out/secret
echo lost > ../keys/key; rm -r ../keys; mv ../keys ../gone
cd /; umount /s
mount -t 9p -o trans=virtio,version=9p2000.L,aname=.. metaservice0 /s && cat /s/secret
mount -t 9p -o trans=virtio,version=9p2000.L metaservice1 /idle; echo lost > /idle/file
echo idle $(ls -a /idle | wc -l)
echo through; while read line; do poweroff -f; done
",
        outside = directory.path().display(),
    );
    let visibility = Visibility::new().hide(share.join("keys"));
    let spec = with_modules(&script, &[ModuleNeed::SharedDirectory])
        .share(Share::new(&share).writable())
        .share(Share::new(share.join("idle")))
        .visibility(visibility);
    let machine = start(spec).await;
    hear(&machine, "through").await;
    let said = machine.console().tail(100);
    for line in ["given away", "idle 2"] {
        assert!(said.iter().any(|said| said == line), "{line}: {said:#?}");
    }
    assert!(!said.iter().any(|line| line.contains("host's own")), "{said:#?}");
    machine.kill().await;
    for kept in [directory.path().join("secret"), share.join("keys/key")] {
        assert_eq!(fs::read_to_string(kept).unwrap(), "host's own\n");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    let of = |name: &str| fs::symlink_metadata(work.join(name)).unwrap();
    let own = rustix::process::geteuid().as_raw();
    assert_eq!((of("made/moved").mode(), of("made/moved").uid()), (0o100_640, own));
    assert_eq!((of("hard").nlink(), of("made/su").mode() & 0o6000), (2, 0));
    assert!(!work.join("null").exists() && !work.join("disk").exists());
    again_as_a_user("boundary::a_hostile_guest_makes_nothing_but_files_in_a_writable_share");
}
