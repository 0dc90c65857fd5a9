//! `cp` in real machines: trees and large files, in both directions, byte for byte.
use metaservice_testing::cli::{Cli, finish, sha256};
use metaservice_testing::wait::Watch;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::METASERVICE;

const WAIT: &str = "echo ready; while [ ! -e /tmp/done ]; do sleep 1; done";

/// Returns what a copy keeps, by path: kind, mode, time, content.
fn tree(root: &Path) -> BTreeMap<String, (u32, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_dir() {
                directories.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                std::fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
            found.insert(name, (metadata.mode(), seconds, nanos, content));
        }
    }
    found
}

fn plant(root: &Path) {
    for directory in 0..50 {
        let directory = root.join(format!("directory {directory}"));
        std::fs::create_dir_all(&directory).unwrap();
        for n in 0..100usize {
            let path = directory.join(format!("file-{n}"));
            std::fs::write(&path, vec![u8::try_from(n).unwrap(); n * 37]).unwrap();
            let mode = if n % 3 == 0 { 0o755 } else { 0o640 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH
                + std::time::Duration::new(1_700_000_000 + n as u64, 123_456_789);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        }
        symlink("file-1", directory.join("link")).unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o750)).unwrap();
    }
}

#[test]
fn a_thousand_files_go_in_before_the_command_and_come_out_after_it() {
    let cli = Cli::new(METASERVICE);
    let root = cli.work().join("tree");
    for directory in 0..10 {
        let directory = root.join(format!("d{directory}"));
        std::fs::create_dir_all(&directory).unwrap();
        for n in 0..100usize {
            std::fs::write(directory.join(format!("f{n}")), vec![b'x'; n * 10]).unwrap();
        }
        symlink("f1", directory.join("link")).unwrap();
    }
    std::fs::write(cli.work().join("note"), "a note").unwrap();
    let script = "find tree -type f | wc -l; cat note /opt/other; date > a.log; date > b.log";
    let options = [
        ["--copy-in", "tree"],
        ["--copy-in", "note"],
        ["--copy-in", "note:/opt/other"],
        ["-w", "/opt"],
        ["--artifact", "/opt/tree:back"],
        ["--artifact", "/opt/*.log:logs/"],
    ];
    let args = [&["run"], &options.concat()[..], &["--", "sh", "-c", script]].concat();
    // The directory is made by a copy, as the first thing that is in it.
    std::fs::create_dir(cli.work().join("empty")).unwrap();
    let args = [&args[..1], &["--copy-in", "empty/.:/opt"], &args[1..]].concat();
    let finished = cli.run(&args);
    assert_eq!(finished.text(0), "1000\na notea note", "{}", finished.stderr);
    let (there, back) = (tree(&root), tree(&cli.work().join("back")));
    assert_eq!(there.len(), 1000 + 10 + 10);
    assert!(there == back, "{:?}", there.iter().find(|(name, what)| back.get(*name) != Some(what)));
    let logs = std::fs::read_dir(cli.work().join("logs")).unwrap();
    let mut logs: Vec<_> = logs.map(|entry| entry.unwrap().file_name()).collect();
    logs.sort();
    assert_eq!(logs, ["a.log", "b.log"]);
}

#[test]
fn a_copy_that_fails_keeps_the_command_from_starting() {
    let cli = Cli::new(METASERVICE);
    std::fs::write(cli.work().join("file"), "content").unwrap();
    let options = ["--copy-in", "file:/no/such/place", "--artifact", "/tmp/x"];
    let finished = cli.run(&[&["run"], &options[..], &["--", "echo", "ran"]].concat());
    assert_eq!(finished.text(125), "");
    let says = "the command is not started: cannot copy file to /no/such/place in the guest";
    assert!(finished.stderr.contains(says), "{}", finished.stderr);
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
}

#[test]
fn five_thousand_files_go_in_and_come_out_the_same() {
    let cli = Cli::new(METASERVICE);
    plant(&cli.work().join("tree"));
    let mut job = cli.start("grove", &["--", "sh", "-c", WAIT]);
    job.wait_for_log("ready");
    cli.run(&["cp", "tree", "grove:/tmp"]).text(0);
    let count = ["exec", "grove", "sh", "-c", "find /tmp/tree -type f | wc -l"];
    assert_eq!(cli.run(&count).text(0).trim(), "5000");
    cli.run(&["cp", "grove:/tmp/tree", "back"]).text(0);
    let (there, back) = (tree(&cli.work().join("tree")), tree(&cli.work().join("back")));
    assert_eq!(there.len(), 5000 + 100);
    assert!(there == back, "{:?}", there.iter().find(|(name, what)| back.get(*name) != Some(what)));

    // An existing directory gets the directory itself. With `/.`, it gets only the content.
    std::fs::create_dir(cli.work().join("into")).unwrap();
    cli.run(&["cp", "grove:/tmp/tree/directory 1", "into"]).text(0);
    cli.run(&["cp", "grove:/tmp/tree/directory 2/.", "into"]).text(0);
    let into = cli.work().join("into");
    assert!(into.join("directory 1/file-7").is_file() && into.join("file-7").is_file());

    // As a tar archive on the standard streams.
    let packed = cli.run(&["cp", "grove:/tmp/tree/directory 3", "-"]);
    assert_eq!(packed.status, Some(0), "{}", packed.stderr);
    std::fs::write(cli.work().join("directory.tar"), &packed.stdout).unwrap();
    let listed = Command::new("tar").arg("tf").arg(cli.work().join("directory.tar")).output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    assert!(
        listed.starts_with("directory 3/\n") && listed.contains("\ndirectory 3/file-99\n"),
        "{listed}"
    );
    let tar = std::fs::File::open(cli.work().join("directory.tar")).unwrap();
    cli.run(&["exec", "grove", "mkdir", "/tmp/unpacked"]).text(0);
    let mut command = cli.command(["cp", "-", "grove:/tmp/unpacked"]);
    finish(command.stdin(Stdio::from(tar)).spawn().unwrap()).text(0);
    let check = "cd '/tmp/unpacked/directory 3' && cmp '/tmp/tree/directory 3/file-99' file-99 && readlink link";
    assert_eq!(cli.run(&["exec", "grove", "sh", "-c", check]).text(0), "file-1\n");

    // Copying a file into a missing directory is an error.
    cli.run(&["cp", "-L", "grove:/tmp/tree/directory 1/link", "alone"]).text(0);
    assert_eq!(std::fs::read(cli.work().join("alone")).unwrap(), vec![1; 37]);
    let nowhere = cli.run(&["cp", "grove:/tmp/tree/directory 1/file-1", "nowhere/"]);
    assert!(
        nowhere.status == Some(125) && nowhere.stderr.contains("there is no directory nowhere/")
    );
    let missing = cli.run(&["cp", "grove:/no/such", "."]);
    assert!(missing.status == Some(125) && missing.stderr.lines().count() == 1, "{missing:?}");
    let left: Vec<_> = std::fs::read_dir(cli.work())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with(".metaservice"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    cli.release("grove");
    job.finish().text(0);
}

#[test]
fn links_go_as_docker_has_it_and_nothing_is_left_out_in_silence() {
    let cli = Cli::new(METASERVICE);
    let at = |name: &str| cli.work().join(name);
    let mut job = cli.start("links", &["--", "sh", "-c", WAIT]);
    job.wait_for_log("ready");
    let copy = |args: &[&str]| {
        let finished = cli.run(&[&["cp"], args].concat());
        assert_eq!(finished.status, Some(0), "{args:?}: {}", finished.stderr);
        finished.stderr
    };
    let inside = |script: &str| cli.run(&["exec", "links", "sh", "-c", script]).text(0);

    std::fs::write(at("real"), "content").unwrap();
    symlink("real", at("cur")).unwrap();
    std::fs::create_dir(at("dir")).unwrap();
    std::fs::write(at("dir/file"), "inner").unwrap();
    symlink("dir", at("to-dir")).unwrap();
    let told = copy(&["cur", "links:/tmp/new"]);
    assert!(told.contains("cur -> /tmp/new (1 link, "), "{told}");
    copy(&["cur", "links:/tmp"]);
    copy(&["to-dir", "links:/tmp/new-dir"]);
    copy(&["-L", "cur", "links:/tmp/followed"]);
    copy(&["to-dir/", "links:/tmp/d"]);
    let links = "cd /tmp; readlink new; readlink cur; readlink new-dir; cat followed d/file";
    assert_eq!(inside(links), "real\nreal\ndir\ncontentinner");
    for nowhere in ["links:/none/new", "links:/tmp/none/"] {
        let refused = cli.run(&["cp", "cur", nowhere]);
        assert!(
            refused.status == Some(125) && refused.stderr.contains("no directory"),
            "{refused:?}"
        );
    }

    inside(
        "cd /tmp; echo links > content; ln -s /tmp/content out; ln -s /tmp/d out-dir; ln -s none dangling; \
         mkfifo d/fifo; mknod d/null c 1 3; chmod 1777 d; chmod 4755 d/file; \
         dd if=/dev/zero of=d/hole bs=1 count=1 seek=30000000 2> /dev/null",
    );
    let target = |name: &str| std::fs::read_link(at(name)).unwrap();
    copy(&["links:/tmp/out", "new"]);
    copy(&["links:/tmp/out", "."]);
    copy(&["links:/tmp/dangling", "new"]);
    copy(&["links:/tmp/out-dir", "link-to-dir"]);
    assert_eq!((target("new"), target("out")), ("none".into(), "/tmp/content".into()));
    assert_eq!(target("link-to-dir"), Path::new("/tmp/d"));
    copy(&["-L", "links:/tmp/out", "plain"]);
    assert_eq!(std::fs::read_to_string(at("plain")).unwrap(), "links\n");
    let nothing = cli.run(&["cp", "-L", "links:/tmp/dangling", "nothing"]);
    assert!(nothing.status == Some(125) && !at("nothing").is_symlink(), "{nothing:?}");
    let mode = |name: &str| std::fs::metadata(at(name)).unwrap().mode() & 0o7777;
    for (to, flags, expected) in [("d2", vec![], 0o755), ("d3", vec!["--set-id"], 0o4755)] {
        let told = copy(&[&flags[..], &["links:/tmp/out-dir/", to]].concat());
        assert!(told.contains(&format!("{to} (2 files, 28.61 MiB, ")), "{told}");
        assert!(told.contains("left out") && told.contains("fifo, null (2 in all)"), "{told}");
        assert_eq!((mode(to), mode(&format!("{to}/file"))), (0o1777, expected));
        let hole = std::fs::metadata(at(to).join("hole")).unwrap();
        assert!(hole.len() == 30_000_001 && hole.blocks() * 512 < 1 << 20, "{}", hole.blocks());
    }

    let told = copy(&["links:/", "root"]);
    assert!(told.contains("left out") && at("root/tmp/content").is_file(), "{told}");
    assert_eq!(std::fs::read_dir(at("root/proc")).unwrap().count(), 0);
    copy(&["links:/proc/sys", "sys"]);
    let release = std::fs::read_to_string(at("sys/kernel/osrelease")).unwrap();
    assert_eq!(release, inside("uname -r"));

    // A reader that closes standard output is not an error.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let unread =
        finish(cli.command(["cp", "links:/proc/sys", "-"]).stdout(writer).spawn().unwrap());
    assert_eq!((unread.status, unread.stderr.as_str()), (Some(0), ""));

    // A link to an open file, as /dev/stdout is.
    symlink("/proc/self/fd/1", at("so")).unwrap();
    let stdout = std::fs::File::create(at("reg")).unwrap();
    let mut command = cli.command(["cp", "links:/tmp/content", "so"]);
    let copied = finish(command.stdout(stdout).spawn().unwrap());
    assert_eq!(copied.status, Some(0), "{}", copied.stderr);
    assert_eq!(std::fs::read_to_string(at("reg")).unwrap(), "links\n");
    assert!(at("so").is_symlink());

    for (words, status) in [(&["nosuch"][..], 127), (&["/etc"], 126), (&["-w"], 126)] {
        let flags: &[&str] = if words == ["-w"] { &["-d", "-w", "/none"] } else { &["-d"] };
        let words = if words == ["-w"] { &["true"][..] } else { words };
        let started = cli.run(&[&["exec"], flags, &["links", "--"], words].concat());
        assert_eq!(started.status, Some(status), "{started:?}");
        assert!(started.stdout.is_empty() && started.stderr.contains("cannot run in links"));
    }
    cli.release("links");
    job.finish().text(0);
}

#[test]
fn a_quarter_of_a_gibibyte_goes_in_and_comes_out_the_same() {
    let cli = Cli::new(METASERVICE);
    let source = cli.work().join("big");
    make_noise(&source, 256 << 20);
    std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o750)).unwrap();
    let mut job = cli.start("large", &["--memory", "1G", "--", "sh", "-c", WAIT]);
    job.wait_for_log("ready");
    cli.run(&["cp", "big", "large:/tmp/big"]).text(0);
    let digest = sha256(&source);
    let there = cli.run(&["exec", "large", "sha256sum", "/tmp/big"]).text(0);
    assert!(there.starts_with(&digest), "{there} is not {digest}");
    cli.run(&["cp", "large:/tmp/big", "again"]).text(0);
    let again = cli.work().join("again");
    assert_eq!(sha256(&again), digest);
    let (before, after) = (source.metadata().unwrap(), again.metadata().unwrap());
    assert_eq!(
        (before.mode(), before.mtime(), before.mtime_nsec()),
        (after.mode(), after.mtime(), after.mtime_nsec())
    );
    cli.release("large");
    job.finish().text(0);
}

#[test]
fn an_interrupted_copy_leaves_nothing() {
    let cli = Cli::new(METASERVICE);
    let mut job = cli.start("endless", &["--", "sh", "-c", WAIT]);
    job.wait_for_log("ready");
    let make = "mkdir /tmp/d; dd if=/dev/zero of=/tmp/d/f bs=1M count=300 2> /dev/null";
    cli.run(&["exec", "endless", "sh", "-c", make]).text(0);
    let watch = Watch::new(cli.work());
    let copy = cli.command(["cp", "endless:/tmp/d", "part"]).spawn().unwrap();
    watch.wait_for("");
    kill_process(Pid::from_child(&copy), Signal::INT).unwrap();
    finish(copy).text(130);
    assert_eq!(std::fs::read_dir(cli.work()).unwrap().count(), 0);
    cli.release("endless");
    job.finish().text(0);
}

/// Quickly creates a file that does not compress.
fn make_noise(path: &Path, length: usize) {
    let mut file = std::fs::File::create(path).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = Vec::with_capacity(1 << 20);
    for _ in 0..length >> 20 {
        block.clear();
        while block.len() < 1 << 20 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block).unwrap();
    }
}

#[test]
fn what_a_killed_copy_leaves_is_removed_by_the_next_one() {
    let cli = Cli::new(METASERVICE);
    let script = format!("mkdir /tmp/tree; dd if=/dev/zero of=/tmp/tree/f bs=1M count=400; {WAIT}");
    let mut job = cli.start("files", &["--memory", "2G", "--", "sh", "-c", &script]);
    job.wait_for_log("ready");
    let here = cli.work().join("here");
    std::fs::create_dir(&here).unwrap();
    let left = || {
        let names = std::fs::read_dir(&here).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.as_encoded_bytes().starts_with(b".metaservice-")).count()
    };
    let watch = Watch::new(&here);
    let mut copy = cli.command(["cp", "files:/tmp/tree", "here/tree"]).spawn().unwrap();
    watch.wait_for("");
    copy.kill().unwrap();
    copy.wait().unwrap();
    assert_eq!(left(), 1);
    cli.run(&["cp", "files:/etc/hosts", "here/hosts"]).text(0);
    assert_eq!(left(), 0);
    // A partial file has no name, so nothing is left.
    let mut copy = cli.command(["cp", "files:/tmp/tree/f", "here/f"]).spawn().unwrap();
    copy.kill().unwrap();
    copy.wait().unwrap();
    assert_eq!(left(), 0);
    job.signal(Signal::KILL);
    job.finish();
    cli.wait_for_exits();
    cli.remove_sockets();
}
