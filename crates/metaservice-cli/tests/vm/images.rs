//! Images that are kept: what comes in, what goes, what they become, and machines of one of them.
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{SystemTime, UNIX_EPOCH};

use metaservice_testing::cli::{
    Cli, Finished, finish,
    images::{bare_image, cloud_image},
    sha256, wait_for,
};
use rustix::fs::inotify;
use serde_json::Value;

use crate::METASERVICE;

/// A sandbox with images of its own, and saved machines.
struct Gallery {
    cli: Cli,
}

impl Gallery {
    fn new() -> Self {
        Self { cli: Cli::with_cache(METASERVICE) }
    }

    fn file(&self, name: &str, content: &[u8]) {
        fs::write(self.cli.work().join(name), content).unwrap();
    }

    fn folder(&self) -> PathBuf {
        self.cli.work().join("data/metaservice/images")
    }

    /// What is in the folder of the images.
    fn entries(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.folder()).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn start(&self, args: &[&str]) -> Child {
        self.cli.command(args).spawn().unwrap()
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Finished {
        self.cli.run(args)
    }

    /// Runs what is refused, with an error that says this.
    #[track_caller]
    fn refused(&self, args: &[&str], says: &str) {
        let finished = self.run(args);
        assert_eq!(finished.text(125), "");
        assert!(finished.stderr.contains(says), "{}", finished.stderr);
    }

    /// Runs the tool with a file system of this size for the images, once after the other. The last
    /// status, what was said, and what is left in the making behind what was printed.
    fn within(&self, size: &str, runs: &[&[&str]]) -> (Option<i32>, String, String) {
        let mut script = format!(
            "mkdir \"$XDG_DATA_HOME\" && mount -t tmpfs -o size={size} none \"$XDG_DATA_HOME\"\n"
        );
        for run in runs {
            let words: Vec<_> = run.iter().map(|word| format!("'{word}'")).collect();
            script += &format!("\"$0\" {}; status=$?\n", words.join(" "));
        }
        script += "find \"$XDG_DATA_HOME/metaservice/images\" -name '.making*'; exit $status";
        let inner = self.cli.command::<&str>([]);
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
        command.arg(inner.get_program()).current_dir(self.cli.work());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stderr), text(&output.stdout))
    }

    /// Starts something, and interrupts it as soon as it makes something in the folder of images.
    #[track_caller]
    fn interrupted(&self, args: &[&str]) {
        fs::create_dir_all(self.folder()).unwrap();
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&watch, self.folder(), inotify::WatchFlags::CREATE).unwrap();
        let child = self.start(args);
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&watch, &mut buffer);
        let making = |name: &std::ffi::CStr| name.to_bytes().starts_with(b".making-");
        while !events.next().unwrap().file_name().is_some_and(making) {}
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        finish(child).text(130);
        self.cli.wait_for_exits();
    }
}

#[test]
fn an_image_comes_and_is_listed_and_goes() {
    let gallery = Gallery::new();
    assert_eq!(gallery.run(&["-q", "image", "ls"]).text(0), "");
    gallery.file("small.raw", &[7; 4096]);
    let digest = gallery.run(&["image", "import", "small.raw"]).text(0);
    let expected = sha256(&gallery.cli.work().join("small.raw"));
    assert_eq!(digest, format!("sha256:{expected}\n"));
    gallery.run(&["image", "import", "small.raw", "--name", "other"]).text(0);
    // The file is not needed any longer, and ours is nobody else's.
    fs::remove_file(gallery.cli.work().join("small.raw")).unwrap();
    assert_eq!(fs::metadata(gallery.folder()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(gallery.run(&["-q", "image", "ls"]).text(0), "other\nsmall\n");
    let table = gallery.run(&["image", "ls"]).text(0);
    let row = format!("other,small  {}  raw ", &expected[..12]);
    assert!(table.lines().nth(1).unwrap().starts_with(&row), "{table}");
    let listed: Value =
        serde_json::from_str(&gallery.run(&["--json", "image", "ls"]).text(0)).unwrap();
    assert_eq!(listed[0]["names"], serde_json::json!(["other", "small"]));
    assert_eq!((&listed[0]["source"], &listed[0]["saved"]), (&"small.raw".into(), &0.into()));

    gallery.refused(&["image", "rm", "nothing"], "hint: there are other, small");
    gallery.refused(&["image", "rm", "../names"], "is no name of an image");
    gallery.refused(&["image", "rm", "builtin"], "is the name of the built-in guest");
    gallery.run(&["image", "rm", "small"]).text(0);
    assert_eq!(gallery.run(&["-q", "image", "ls"]).text(0), "other\n");
    gallery.run(&["image", "rm", "other"]).text(0);
    assert_eq!(gallery.entries(), ["lock", "names"].map(str::to_owned).into());
}

#[test]
fn what_is_no_image_is_refused_in_words_and_leaves_nothing() {
    let gallery = Gallery::new();
    let qcow2 = |offset: usize, bytes: &[u8]| {
        let mut header = vec![0; 104];
        header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        header[20..24].copy_from_slice(&16_u32.to_be_bytes());
        header[offset..offset + bytes.len()].copy_from_slice(bytes);
        header
    };
    let wrong: [(&str, Vec<u8>, &str); 7] = [
        (
            "backed.qcow2",
            qcow2(8, &512_u64.to_be_bytes()),
            "refers to another file (a backing file)",
        ),
        ("data.qcow2", qcow2(72, &4_u64.to_be_bytes()), "refers to another file (a data file)"),
        ("secret.qcow2", qcow2(32, &2_u32.to_be_bytes()), "qcow2, encrypted"),
        ("broken.qcow2", qcow2(36, &u32::MAX.to_be_bytes()), "qcow2, broken"),
        ("packed.qcow2", b"\xfd7zXZ\0".to_vec(), "is packed by xz: unpack it first"),
        ("of-hyper-v", b"vhdxfile".to_vec(), "convert it with 'qemu-img convert -O qcow2'"),
        ("of-another", b"conectix".to_vec(), "convert it with 'qemu-img convert -O qcow2'"),
    ];
    for (name, content, says) in &wrong {
        gallery.file(name, content);
        gallery.refused(&["image", "import", name, "--name", "wrong"], says);
    }
    gallery.refused(&["image", "import", "nowhere.raw"], "cannot read the disk image nowhere.raw");
    gallery.refused(&["image", "import", "/dev/null"], "is neither a file nor a block device");
    gallery.refused(&["image", "import", "."], "hint: give it a name: --name NAME");
    gallery.file("good.raw", &[1; 512]);
    gallery.refused(
        &["image", "import", "good.raw", "--name", "a/b"],
        "in --name: \"a/b\" is no name",
    );
    gallery.refused(&["image", "import", "good.raw", "--name", "builtin"], "the built-in guest");
    gallery.run(&["image", "import", "good.raw"]).text(0);
    gallery.file("other.raw", &[2; 512]);
    let taken = ["image", "import", "other.raw", "--name", "good"];
    gallery.refused(
        &taken,
        "hint: choose another name, or remove that one: metaservice image rm good",
    );
    gallery
        .refused(&["run", "--image", "nothing", "--", "true"], "hint: it is the name of no image");
    gallery.refused(&["image", "prepare", "nothing"], "hint: there are good");
    gallery.refused(&["image", "prepare", "builtin"], "hint: that is our own guest");
    gallery.refused(&["image", "snapshot", "./good.raw"], "metaservice image import ./good.raw");
    gallery.refused(&["run", "--image", "sha256:12", "--", "true"], "8 digits of it or more");
    gallery.refused(&["image", "prepare", "good", "--as", "good"], "hint: choose another name");
    // Of a copy there would be a trace.
    for (flag, value, says) in [
        ("--memory", "1", "in --memory"),
        ("--cpus", "0", "in --cpus"),
        ("--boot-timeout", "soon", "in --boot-timeout"),
        ("--timeout", "0", "in --timeout"),
        ("--env", "=x", "in --env"),
        ("--ssh-key", "nothing", "in --ssh-key"),
        ("--user-data", "/no/where", "in --user-data"),
        ("--as", "a b", "in --as"),
    ] {
        let wrong = gallery.run(&["image", "prepare", "good", flag, value]);
        assert_eq!(wrong.text(125), "");
        assert!(wrong.stderr.contains(says), "{}", wrong.stderr);
        assert_eq!(wrong.stderr.lines().count(), 1, "{}", wrong.stderr);
    }
    gallery.refused(&["image", "snapshot", "good", "--memory", "1"], "in --memory");
    gallery.refused(&["image", "snapshot", "nothing"], "there is no image \"nothing\"");
    assert_eq!(gallery.entries().len(), 3, "{:?}", gallery.entries());
}

#[test]
fn an_interrupted_import_leaves_nothing() {
    let gallery = Gallery::new();
    // Larger than anybody reads in the time that this takes.
    File::create(gallery.cli.work().join("huge.raw")).unwrap().set_len(1 << 42).unwrap();
    gallery.interrupted(&["image", "import", "huge.raw"]);
    assert_eq!(gallery.entries(), ["lock", "names"].map(str::to_owned).into());
}

#[test]
fn a_full_disk_is_said_before_anything_is_copied() {
    let gallery = Gallery::new();
    gallery.file("large.raw", &[1; 8 << 20]);
    let (status, said, left) = gallery.within("2m", &[&["image", "import", "large.raw"]]);
    assert_eq!(status, Some(125), "{said}");
    assert!(said.contains("there is no room: "), "{said}");
    assert_eq!(left, "");
}

#[test]
fn a_disk_that_a_guest_fills_ends_its_machine() {
    let gallery = Gallery::new();
    let image = bare_image(&gallery.cli.work());
    let import = ["image", "import", &image, "--name", "bare"];
    let fill = ["image", "prepare", "bare", "--", "dd", "if=/dev/urandom", "of=/dev/vda", "bs=1M"];
    let (status, said, left) = gallery.within("44m", &[&import, &fill]);
    assert_eq!(status, Some(125), "{said}");
    assert!(said.contains("this host has no room left for what the guest writes"), "{said}");
    assert!(left.starts_with("sha256:") && !left.contains(".making-"), "{left}");
}

#[test]
fn what_cannot_be_prepared_is_not_kept() {
    let gallery = Gallery::new();
    let image = bare_image(&gallery.cli.work());
    gallery.run(&["image", "import", &image, "--name", "bare"]).text(0);
    let before = gallery.entries();
    let failing = ["image", "prepare", "bare", "--", "sh", "-c", "echo tried; exit 7"];
    let failed = gallery.run(&failing);
    assert_eq!(failed.text(7), "tried\n");
    assert!(failed.stderr.contains("no image is kept"), "{}", failed.stderr);
    let lying = gallery.run(&["image", "prepare", "bare", "--", "exit", "0"]);
    assert_eq!(
        lying.status,
        Some(127),
        "words of the shell are none of a command: {}",
        lying.stderr
    );
    gallery.interrupted(&["image", "prepare", "bare"]);
    let sleeping = ["--json", "image", "prepare", "bare", "--", "sleep", "1000"];
    let mut child = gallery.start(&sleeping);
    let _said = wait_for(&mut child, "\"event\":\"started\"");
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(gallery.entries(), before);
    // What a killed one leaves goes with the next.
    let mut child = gallery.start(&sleeping);
    let _said = wait_for(&mut child, "\"event\":\"started\"");
    child.kill().unwrap();
    child.wait().unwrap();
    gallery.cli.wait_for_exits();
    gallery.cli.remove_sockets();
    assert_eq!(gallery.entries().len(), before.len() + 1);
    gallery.file("other.raw", &[1; 512]);
    gallery.run(&["image", "import", "other.raw"]).text(0);
    gallery.run(&["image", "rm", "other"]).text(0);
    assert_eq!(gallery.entries(), before);
    assert_eq!(gallery.run(&["-q", "image", "ls"]).text(0), "bare\n");
}

#[test]
fn a_stock_image_is_prepared_and_saved_and_twenty_machines_of_it_share_nothing() {
    let gallery = Gallery::new();
    let (image, _) = cloud_image();
    gallery.run(&["image", "import", &image, "--name", "stock"]).text(0);
    gallery.file("own", b"#!/bin/sh\necho told > /root/told\n");
    let console =
        |name: &str| fs::read_to_string(gallery.cli.work().join(name)).unwrap_or_default();
    let prepare = [
        "image",
        "prepare",
        "stock",
        "--as",
        "ready",
        "--user-data",
        "own",
        "--console",
        "console",
        "-e",
        "WHO=me",
        "--",
        "sh",
        "-c",
        "echo \"$WHO\" > /root/mark",
    ];
    let prepared = gallery.run(&prepare);
    assert_eq!(prepared.status, Some(0), "{}\n{}", prepared.stderr, console("console"));
    assert_eq!(prepared.text(0), "");
    let (_, digest) = prepared.stderr.split_once("ready is ready: sha256:").unwrap();
    gallery.run(&["image", "rm", "stock"]).text(0);
    for (flag, value) in [("--net", "user"), ("--user-data", "own")] {
        let args = ["run", "--image", "ready", flag, value, "--", "true"];
        gallery.refused(&args, "to \"metaservice image prepare\"");
    }

    let saved = gallery.run(&["image", "snapshot", "ready"]);
    saved.text(0);
    let again = gallery.run(&["image", "snapshot", "ready"]);
    assert!(again.stderr.contains("there was a snapshot of"), "{}", again.stderr);
    let ready = &gallery.folder().join(digest.trim()).join("disk");
    let before = sha256(ready);
    // Each writes to its disk, and sees what was prepared and nothing of the others.
    let script = "cat /root/mark /root/told; test ! -e /root/mine && echo mine > /root/mine && sync && echo alone; \
                  test -e /run/cloud-init/disabled && echo ready; \
                  cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | sha256sum; \
                  sha256sum < /run/metaservice/session; sha256sum < /etc/machine-id; hostname; \
                  python3 -c 'import urllib.request as u; \
                  print(u.urlopen(\"http://169.254.169.254/latest/meta-data/instance-id\").read().decode())'; \
                  date +%s";
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut seen = BTreeSet::new();
    for pair in 0..10 {
        let begun = now();
        let start = |n: usize| {
            let name = format!("machine-{}", 2 * pair + n);
            gallery.start(&[
                "run", "--json", "--image", "ready", "--name", &name, "--", "sh", "-c", script,
            ])
        };
        for child in [start(0), start(1)] {
            let finished = finish(child);
            let text = finished.text(0);
            assert!(finished.stderr.contains("\"event\":\"restored\""), "{}", finished.stderr);
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines[..4], ["me", "told", "alone", "ready"], "{text}");
            let (clock, own) = lines[4..].split_last().unwrap();
            let clock: u64 = clock.parse().unwrap();
            assert!((begun..=now()).contains(&clock), "{clock} is not after {begun}");
            assert_eq!(own.len(), 6, "{text}");
            assert!(own[4].starts_with("machine-") && own[5].starts_with("i-"), "{text}");
            for line in own {
                assert!(seen.insert((*line).to_owned()), "{line} twice");
            }
        }
    }
    assert_eq!(seen.len(), 120);
    assert_eq!(sha256(ready), before, "the image was written");

    // With the image goes the machine that was saved of it.
    let warm = gallery.cli.work().join("cache/metaservice/warm");
    let machines =
        || fs::read_dir(&warm).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(machines(), 1);
    gallery.run(&["image", "rm", "ready"]).text(0);
    assert_eq!((machines(), gallery.entries().len()), (0, 2));
}
