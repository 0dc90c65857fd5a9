//! Directories of the host in the guest: modes, many files, attacks, and machines that are
//! restored.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use metaservice_testing::cli::Cli;

use crate::METASERVICE;
use crate::root::{bootable_image, disk_image};

/// A file and its content.
fn tree(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory_now) = open.pop() {
        for entry in fs::read_dir(directory_now).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().display().to_string();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn each_volume_has_its_mode_and_what_the_guest_makes_belongs_to_the_user() {
    let cli = Cli::new(METASERVICE);
    for name in ["read", "write", "layer", "with:colon"] {
        fs::create_dir(cli.work().join(name)).unwrap();
        fs::write(cli.work().join(name).join("file"), format!("{name}\n")).unwrap();
    }
    fs::write(cli.work().join("write/program"), "#!/bin/sh\necho it runs\n").unwrap();
    let script = "cat /a/b/*/file /c/file; \
        for at in /a/b/read /a/b/layer /c /colon /c/below; do \
          echo new > $at/new && echo $at is written; \
        done 2>/dev/null; \
        cat /a/b/layer/new; chmod 751 /c/program; /c/program; mkdir /c/made; ln -s file /c/link; \
        chown 77:88 /c/new && mv /c/new /c/made/moved; rm /a/b/layer/file; \
        ls -a / | grep metaservice; ls /a/b/layer; df -h /c > /dev/null && echo done";
    let args = [
        "run",
        "-v",
        "read:/a//b/read",
        "-v",
        "write:/c:rw",
        "-v",
        "layer:/a/b/layer:overlay",
        "-v",
        r"with\:colon:/colon:ro",
        "-v",
        "read:/c/below",
        "--",
        "sh",
        "-c",
        script,
    ];
    let said = cli.run(&args).text(0);
    let expected = "layer\nread\nwrite\n/a/b/layer is written\n/c is written\nnew\nit runs\n\
        .metaservice\nnew\ndone\n";
    assert_eq!(said, expected);
    let at = |name: &str| cli.work().join(name);
    assert_eq!(tree(&at("read")), [("file".to_owned(), "read\n".to_owned())].into());
    assert_eq!(tree(&at("layer")), [("file".to_owned(), "layer\n".to_owned())].into());
    let moved = fs::metadata(at("write/made/moved")).unwrap();
    let own = rustix::process::geteuid().as_raw();
    assert_eq!((moved.uid(), moved.mode() & 0o7777), (own, 0o644));
    assert_eq!(fs::metadata(at("write/program")).unwrap().mode() & 0o7777, 0o751);
    assert_eq!(fs::read_link(at("write/link")).unwrap(), Path::new("file"));
    assert!(at("write/below").is_dir(), "the place of a volume within another");
}

#[test]
fn two_thousand_files_are_read_and_written() {
    let cli = Cli::new(METASERVICE);
    let (from, to) = (cli.work().join("from"), cli.work().join("to"));
    fs::create_dir(&to).unwrap();
    for number in 0..2_000 {
        let directory = from.join(format!("d{}", number % 100));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("f{number}")), format!("content of {number}\n")).unwrap();
    }
    let script = "cp -r /from/. /to/ && find /to -type f | wc -l && cat /from/d*/* | wc -c";
    let args = ["run", "-v", "from:/from", "-v", "to:/to:rw", "--", "sh", "-c", script];
    let bytes: usize = (0..2_000).map(|number| format!("content of {number}\n").len()).sum();
    assert_eq!(cli.run(&args).text(0), format!("2000\n{bytes}\n"));
    assert!(tree(&from) == tree(&to), "the copies differ");
}

#[test]
fn an_artifact_does_not_follow_what_the_guest_makes_in_a_volume() {
    let cli = Cli::new(METASERVICE);
    let (volume, private) = (cli.work().join("volume"), cli.work().join("private"));
    for directory in [volume.join("out"), volume.join("tree"), private.clone()] {
        fs::create_dir_all(directory).unwrap();
    }
    let socket = std::os::unix::net::UnixListener::bind(cli.work().join("socket")).unwrap();
    socket.set_nonblocking(true).unwrap();
    let script = format!(
        "mkdir /k /tree; echo key > /k/key; cp /k/key /tree; cd /v; rmdir out tree; \
         ln -s {private} out; ln -s {private} new; ln -s {private} tree; ln -s {socket} report",
        private = private.display(),
        socket = cli.work().join("socket").display(),
    );
    let arguments = ["run", "-v", "volume:/v:rw", "--artifact", "/k/key:volume/report"];
    let more = ["--artifact", "/k/*:volume/out", "--artifact", "/k/k*:volume/new"];
    let last = ["--artifact", "/tree/.:volume/tree", "--", "sh", "-c", &script];
    let finished = cli.run(&[&arguments[..], &more, &last].concat());
    assert_eq!(finished.text(125), "");
    assert_eq!(fs::read_dir(&private).unwrap().count(), 0, "{finished:?}");
    assert!(socket.accept().is_err(), "the host's socket has a client");
    assert_eq!(fs::read_to_string(volume.join("report")).unwrap(), "key\n");
}

#[test]
fn no_guest_leaves_its_volume() {
    let cli = Cli::new(METASERVICE);
    let host = cli.work().join("host");
    let volume = host.join("volume");
    fs::create_dir_all(volume.join("sub")).unwrap();
    fs::write(host.join("secret"), "host's own\n").unwrap();
    // Links of the host lead to places in the guest.
    symlink("../secret", volume.join("relative")).unwrap();
    symlink(host.join("secret"), volume.join("absolute")).unwrap();
    let secret = host.join("secret");
    let script = format!(
        "cd /v; ln -s {secret} l1; ln -s .. l2; ln -s /v/l2 l3; \
         for path in l1 l2/secret l3/secret relative absolute ../secret sub/../../secret; do \
           cat $path 2>/dev/null && echo read $path; echo lost > $path; \
         done 2>/dev/null; \
         mkdir -p {above} && echo the guest\\'s own > {secret}; cat l1; \
         mkdir /m; cd /; umount /v; \
         for name in .. ../.. ../secret /.. {host}; do \
           mount -t 9p -o trans=virtio,version=9p2000.L,aname=$name metaservice0 /m && \
             {{ cat /m/secret /m/../m/secret 2>/dev/null; ls /m; umount /m; }}; \
         done; \
         mount -t 9p -o trans=virtio,version=9p2000.L metaservice0 /m; cd /m; \
         mknod null c 1 3 && echo made a device; mknod disk b 253 0 && echo made a disk; \
         cp /bin/busybox su && chmod 4755 su && echo made a set-user-id file; chmod 2755 su; \
         chmod g+s sub && echo made a set-group-id directory; \
         mkfifo pipe; ln su hard; \
         n=0; while [ $n -lt 200 ]; do \
           mkdir race; (echo x > race/secret) & mv race race.$n; ln -s {host} race; \
           echo lost > race/secret; rm race; n=$((n+1)); \
         done 2>/dev/null; wait; cd /; umount /m; echo tried",
        secret = secret.display(),
        host = host.display(),
        above = host.display(),
    );
    let finished = cli.run(&["run", "-v", "host/volume:/v:rw", "--", "sh", "-c", &script]);
    let said = finished.text(0);
    assert!(said.ends_with("tried\n"), "{said}");
    assert!(!said.contains("host's own") && !said.contains("made a"), "{said}");
    assert!(said.contains("the guest's own"), "{said}");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "host's own\n");
    let names: Vec<_> = fs::read_dir(&host).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(&volume).unwrap() {
        let metadata = entry.unwrap().path().symlink_metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o6000), (own, 0));
    }
    // Host tools that do not follow links find only what is in the volume.
    let program = fs::metadata(volume.join("su")).unwrap();
    assert_eq!((program.permissions().mode() & 0o7777, program.nlink()), (0o755, 2));
}

#[test]
fn hidden_paths_are_empty_in_a_volume_and_shown_on_request() {
    let cli = Cli::new(METASERVICE);
    let home = cli.work().join("home");
    for name in ["keys", "more"] {
        fs::create_dir_all(home.join(name)).unwrap();
        fs::write(home.join(name).join("key"), format!("{name}\n")).unwrap();
    }
    let keys = home.join("keys");
    let script = "ls /home/keys /home/more; echo x > /home/keys/key; rm -r /home/keys; echo tried";
    let hidden = ["run", "-v", "home:/home:rw", "--hide", keys.to_str().unwrap()];
    let args: Vec<&str> = hidden.into_iter().chain(["--", "sh", "-c", script]).collect();
    let said = cli.run(&args).text(0);
    assert!(said.starts_with("/home/keys:\n\n/home/more:\nkey\n"), "{said}");
    assert_eq!(fs::read_to_string(keys.join("key")).unwrap(), "keys\n");
    // A directory that is named itself is shown.
    let args = ["run", "-v", "home/keys:/k", "--", "cat", "/k/key"];
    assert_eq!(cli.run(&args).text(0), "keys\n");
}

#[test]
fn a_machine_with_directories_is_restored_from_a_snapshot() {
    let cli = Cli::with_cache(METASERVICE);
    cli.run(&["image", "snapshot", "builtin"]).text(0);
    fs::create_dir(cli.work().join("src")).unwrap();
    fs::write(cli.work().join("src/file"), "content\n").unwrap();
    let script = "cat /mnt/src/file; echo $(hostname) > /mnt/src/out; python3 -c 'print(6 * 7)'";
    let under_root = ["--rootfs", "/", "-v", "src:/mnt/src:rw", "--"];
    let restored = |args: &[&str], code| {
        let args: Vec<&str> = ["run", "--json"].iter().chain(args).copied().collect();
        let finished = cli.run(&args);
        assert!(finished.stderr.contains("\"event\":\"restored\""), "{}", finished.stderr);
        finished.text(code)
    };
    let args: Vec<&str> =
        ["--name", "under"].into_iter().chain(under_root).chain(["sh", "-c", script]).collect();
    assert_eq!(restored(&args, 0), "content\n42\n");
    assert_eq!(fs::read_to_string(cli.work().join("src/out")).unwrap(), "under\n");
    let four = ["-v", "src:/a", "-v", "src:/b", "-v", "src:/c:overlay", "-v", "src:/d:rw"];
    let args: Vec<&str> =
        four.into_iter().chain(["--", "sh", "-c", "cat /a/out /d/file; exit 3"]).collect();
    assert_eq!(restored(&args, 3), "under\ncontent\n");
    // The snapshot has four devices. A machine with more boots.
    let mut five = vec!["run", "--json", "-v", "src:/e"];
    five.extend(&four);
    five.extend(["--", "cat", "/e/file"]);
    let finished = cli.run(&five);
    assert_eq!(finished.text(0), "content\n");
    assert!(finished.stderr.contains("\"event\":\"booting\""), "{}", finished.stderr);
}

#[test]
fn an_agent_that_is_killed_finds_its_root_and_volumes_again() {
    let cli = Cli::with_cache(METASERVICE);
    cli.run(&["image", "snapshot", "builtin"]).text(0);
    let job = cli.start("root", &["--rootfs", "/", "-v", ".:/srv/x:rw", "--", "sleep", "600"]);
    let script = "kill -9 $(pgrep -f 'metaservice-guest --stay run')";
    cli.run(&["exec", "root", "--", "sh", "-c", script]);
    let script = "python3 -c 'print(1)'; echo y > /srv/x/written; pgrep -c sleep";
    assert_eq!(cli.run(&["exec", "root", "--", "sh", "-c", script]).text(0), "1\n1\n");
    assert_eq!(fs::read_to_string(cli.work().join("written")).unwrap(), "y\n");
    cli.run(&["kill", "root"]).text(0);
    drop(job.finish());
}

#[test]
fn an_image_mounts_volumes_if_its_kernel_can() {
    let cli = Cli::new(METASERVICE);
    fs::create_dir(cli.work().join("src")).unwrap();
    fs::write(cli.work().join("src/file"), "content\n").unwrap();
    disk_image(&cli.work());
    let script = "cat /a/b/file; echo new > /a/b/file; echo rw > /c/rw; cat /a/b/file";
    let on_disk = [
        "run",
        "--image",
        "disk.qcow2",
        "--kernel",
        "builtin",
        "-v",
        "src:/a/b:overlay",
        "-v",
        "src:/c:rw",
        "--",
        "sh",
        "-c",
        script,
    ];
    assert_eq!(cli.run(&on_disk).text(0), "content\nnew\n");
    assert_eq!(fs::read_to_string(cli.work().join("src/rw")).unwrap(), "rw\n");
    // The kernel of this image loads no driver.
    bootable_image(&cli.work());
    let args = ["run", "--image", "boot.qcow2", "-v", "src:/src", "--", "echo", "started"];
    let finished = cli.run(&args);
    let said = finished.text(126) + &finished.stderr;
    let says = "cannot mount the volume at /src: the kernel of this guest has no 9p driver";
    assert!(said.contains(says) && !said.contains("started\n"), "{said}");
}
