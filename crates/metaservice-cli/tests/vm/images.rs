//! `metaservice image`: import, prepare, snapshot and remove images, and run machines from one.

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
use metaservice_testing::wait::Watch;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::METASERVICE;

/// The tool, with its own images and snapshots.
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

    fn directory(&self) -> PathBuf {
        self.cli.work().join("data/metaservice/images")
    }

    /// The names in the directory of the images.
    fn entries(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.directory()).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn start(&self, args: &[&str]) -> Child {
        self.cli.command(args).spawn().unwrap()
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Finished {
        self.cli.run(args)
    }

    /// Runs the tool, and checks that it fails with `says` in its error.
    #[track_caller]
    fn refused(&self, args: &[&str], says: &str) {
        let finished = self.run(args);
        assert_eq!(finished.text(125), "");
        assert!(finished.stderr.contains(says), "{}", finished.stderr);
    }

    /// Runs the tool several times, with a file system of `size` for the images. Returns the last
    /// exit status, stderr, and stdout followed by the names of unfinished images.
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

    /// Starts the tool, and interrupts it when it creates an image.
    #[track_caller]
    fn interrupted(&self, args: &[&str]) {
        fs::create_dir_all(self.directory()).unwrap();
        let watch = Watch::new(self.directory());
        let child = self.start(args);
        watch.wait_for(".making-");
        signal(&child, Signal::INT);
        finish(child).text(130);
        self.cli.wait_for_exits();
    }

    /// An image of busybox with the name `bare`, for machines that boot within seconds.
    fn with_bare_image() -> Self {
        let gallery = Self::new();
        let image = bare_image(&gallery.cli.work());
        gallery.run(&["image", "import", &image, "--name", "bare"]).text(0);
        gallery
    }

    /// Starts to prepare the image `bare`, and waits until the guest runs its command.
    fn preparing(&self) -> Child {
        let mut child = self.start(&["--json", "image", "prepare", "bare", "--", "sleep", "1000"]);
        wait_for(&mut child, "\"event\":\"started\"");
        child
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
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
    // The store has its own copy, which only its owner can read.
    fs::remove_file(gallery.cli.work().join("small.raw")).unwrap();
    assert_eq!(fs::metadata(gallery.directory()).unwrap().mode() & 0o777, 0o700);
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
    gallery.refused(&["image", "prepare", "builtin"], "hint: that is the built-in guest");
    gallery.refused(&["image", "snapshot", "./good.raw"], "metaservice image import ./good.raw");
    gallery.refused(&["run", "--image", "sha256:12", "--", "true"], "8 digits of it or more");
    gallery.refused(&["image", "prepare", "good", "--as", "good"], "hint: choose another name");
    // Each flag is checked before anything is copied.
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
    // So large that the import cannot end before the signal.
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
fn a_failed_prepare_keeps_nothing() {
    let gallery = Gallery::with_bare_image();
    let before = gallery.entries();
    let command = ["image", "prepare", "bare", "--", "sh", "-c", "echo tried; exit 7"];
    let finished = gallery.run(&command);
    assert_eq!(finished.text(7), "tried\n");
    assert!(finished.stderr.contains("no image is kept"), "{}", finished.stderr);
    assert_eq!(gallery.entries(), before);
}

#[test]
fn the_command_of_prepare_is_no_line_of_a_shell() {
    let gallery = Gallery::with_bare_image();
    let finished = gallery.run(&["image", "prepare", "bare", "--", "exit", "0"]);
    assert_eq!(finished.status, Some(127), "{}", finished.stderr);
}

#[test]
fn an_interrupted_prepare_keeps_nothing() {
    let gallery = Gallery::with_bare_image();
    let before = gallery.entries();
    gallery.interrupted(&["image", "prepare", "bare"]);
    assert_eq!(gallery.entries(), before);
}

#[test]
fn a_prepare_that_is_terminated_while_its_command_runs_keeps_nothing() {
    let gallery = Gallery::with_bare_image();
    let before = gallery.entries();
    let mut child = gallery.preparing();
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(gallery.entries(), before);
}

#[test]
fn the_rest_of_a_killed_prepare_is_removed_by_the_next_import() {
    let gallery = Gallery::with_bare_image();
    let before = gallery.entries();
    let mut child = gallery.preparing();
    child.kill().unwrap();
    child.wait().unwrap();
    gallery.cli.wait_for_exits();
    gallery.cli.remove_sockets();
    assert_eq!(gallery.entries().len(), before.len() + 1, "the rest of the killed prepare");

    gallery.file("other.raw", &[1; 512]);
    gallery.run(&["image", "import", "other.raw"]).text(0);
    gallery.run(&["image", "rm", "other"]).text(0);

    assert_eq!(gallery.entries(), before);
    assert_eq!(gallery.run(&["-q", "image", "ls"]).text(0), "bare\n");
}

/// How many snapshots there are.
fn snapshots(gallery: &Gallery) -> usize {
    let entries = fs::read_dir(gallery.cli.work().join("cache/metaservice/warm")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
}

/// Prepares a stock image with user data and a command, and creates a snapshot. Returns the path of
/// the disk.
fn prepare_stock_image(gallery: &Gallery) -> PathBuf {
    let (image, _) = cloud_image();
    gallery.run(&["image", "import", &image, "--name", "stock"]).text(0);
    gallery.file("user-data", b"#!/bin/sh\necho user data > /root/data\n");
    let flags = [
        "--as",
        "ready",
        "--user-data",
        "user-data",
        "--console",
        "console",
        "-e",
        "WHO=me",
        "--boot-timeout",
        "10m",
    ];
    let command = ["--", "sh", "-c", "echo \"$WHO\" > /root/command"];
    let prepared =
        gallery.run(&[&["image", "prepare", "stock"], &flags[..], &command[..]].concat());
    let console = fs::read_to_string(gallery.cli.work().join("console")).unwrap_or_default();
    assert_eq!(prepared.status, Some(0), "{}\n{console}", prepared.stderr);
    assert_eq!(prepared.text(0), "");
    gallery.run(&["image", "rm", "stock"]).text(0);
    gallery.run(&["image", "snapshot", "ready"]).text(0);
    let (_, digest) = prepared.stderr.split_once("ready is ready: sha256:").unwrap();
    gallery.directory().join(digest.trim()).join("disk")
}

/// What a machine prints about itself. The first lines show the preparation and that the disk is
/// its own, and are the same in each machine. The others must differ. The last is the time.
const IDENTITY: &str = "cat /root/command /root/data; \
    test ! -e /root/own && echo own > /root/own && sync && echo own disk; \
    test -e /run/cloud-init/disabled && echo cloud-init disabled; \
    cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | sha256sum; \
    sha256sum < /run/metaservice/session; sha256sum < /etc/machine-id; hostname; \
    python3 -c 'import urllib.request as u; \
    print(u.urlopen(\"http://169.254.169.254/latest/meta-data/instance-id\").read().decode())'; \
    date +%s";

const COMMON: [&str; 4] = ["me", "user data", "own disk", "cloud-init disabled"];

#[test]
fn machines_from_a_snapshot_of_a_stock_image_share_nothing() {
    let gallery = Gallery::new();
    // The preparation boots a distribution, which takes minutes: all that needs one is checked
    // here.
    let disk = prepare_stock_image(&gallery);
    check_flags_of_the_preparation(&gallery);
    check_that_there_is_one_snapshot(&gallery);
    let before = sha256(&disk);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut seen = BTreeSet::new();
    // Two at the same time, and one after them.
    for names in [&["machine-0", "machine-1"][..], &["machine-2"]] {
        let begun = now();
        let start = |name: &&str| {
            let run = ["run", "--json", "--image", "ready", "--name", name];
            gallery.start(&[&run[..], &["--", "sh", "-c", IDENTITY]].concat())
        };
        let machines: Vec<_> = names.iter().map(start).collect();
        for machine in machines {
            let finished = finish(machine);
            let text = finished.text(0);
            assert!(finished.stderr.contains("\"event\":\"restored\""), "{}", finished.stderr);
            let lines: Vec<&str> = text.lines().collect();
            let (common, own) = lines.split_at(COMMON.len());
            let (clock, own) = own.split_last().unwrap();
            assert_eq!(common, COMMON, "{text}");
            let clock: u64 = clock.parse().unwrap();
            assert!((begun..=now()).contains(&clock), "{clock} is before {begun}");
            assert_eq!(own.len(), 6, "{text}");
            assert!(own[4].starts_with("machine-") && own[5].starts_with("i-"), "{text}");
            for line in own {
                assert!(seen.insert((*line).to_owned()), "{line} in two machines");
            }
        }
    }
    assert_eq!(seen.len(), 18);
    assert_eq!(sha256(&disk), before, "a machine has written to the image");
    gallery.run(&["image", "rm", "ready"]).text(0);
    assert_eq!(snapshots(&gallery), 0);
}

/// What cloud-init was given cannot be given again.
fn check_flags_of_the_preparation(gallery: &Gallery) {
    let args = ["run", "--image", "ready", "--user-data", "user-data", "--", "true"];
    gallery.refused(&args, "to \"metaservice image prepare\"");
}

fn check_that_there_is_one_snapshot(gallery: &Gallery) {
    let again = gallery.run(&["image", "snapshot", "ready"]);
    assert!(again.stderr.contains("there was a snapshot of"), "{}", again.stderr);
    assert_eq!(snapshots(gallery), 1);
}
