//! The root of the guest: a directory of the host, or a disk image.

use metaservice_testing::cli::{Cli, sha256};
use std::path::Path;

use crate::METASERVICE;

#[test]
fn the_hosts_own_userland_runs_and_stays_as_it_is() {
    let cli = Cli::new(METASERVICE);
    let mark = format!("/var/tmp/metaservice-{}", std::process::id());
    let script = format!(
        "import os; open('{mark}', 'w').write('x'); print(sorted(os.listdir('/'))[:1], 6 * 7)"
    );
    let finished = cli.run(&["run", "--rootfs", "/", "--", "python3", "-c", &script]);
    assert!(finished.text(0).ends_with("42\n"));
    assert!(!Path::new(&mark).exists(), "the guest wrote to the host");
}

#[test]
fn a_guest_finds_no_process_and_no_secret_of_the_host_under_its_root() {
    let cli = Cli::new(METASERVICE);
    let hidden = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(hidden.path().join("key"), "host's own").unwrap();
    let (here, pid) = (hidden.path().display(), std::process::id());
    // The script of a bug report. It bypasses the caches of the guest.
    let script = format!(
        "mkdir /m; mount --bind / /m; ls /m/proc /m/sys /m/dev; \
         for path in /m/proc/{pid}/environ /m/proc/1/environ /m/etc/shadow {here}/key; do \
           dd if=$path iflag=direct bs=64k count=1 2>/dev/null; \
         done; umount /m; su -s /bin/sh -c 'echo still a host' daemon 2>/dev/null || echo still"
    );
    let path = hidden.path().to_str().unwrap();
    let args = ["run", "--rootfs", "/", "--hide", path, "--", "sh", "-c", &script];
    let said = cli.run(&args).text(0);
    let lines: Vec<&str> = said.lines().filter(|line| !line.ends_with(':')).collect();
    assert!(matches!(lines[..], [.., last] if last.starts_with("still")), "{said}");
    assert!(lines.iter().filter(|line| !line.is_empty()).count() == 1, "{said}");
}

#[test]
fn a_file_that_the_host_changes_is_read_as_it_is() {
    let cli = Cli::new(METASERVICE);
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "old".repeat(3000)).unwrap();
    let path = file.to_str().unwrap();
    let job = cli.start("host", &["--rootfs", "/", "--", "sleep", "600"]);
    let look = |script: &str| cli.run(&["exec", "host", "--", "sh", "-c", script]).text(0);
    look(&format!("stat {path}; head -c 5000 {path}"));
    // The length by stat, and the length and content by reading. The guest has read half of it
    // before.
    for content in ["two".repeat(2), "longer".repeat(5000)] {
        std::fs::write(&file, &content).unwrap();
        let said = look(&format!("stat -c %s {path}; wc -c < {path}; cat {path}"));
        let length = content.len();
        assert!(
            said == format!("{length}\n{length}\n{content}"),
            "{}",
            &said[..40.min(said.len())]
        );
    }
    cli.run(&["kill", "host"]).text(0);
    drop(job.finish());
}

#[test]
fn no_guest_writes_through_its_root_directory_whatever_it_mounts() {
    let cli = Cli::new(METASERVICE);
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(directory.path().join("kept"), "kept").unwrap();
    let here = directory.path().display();
    // The share by another mount, below the overlay, and in the init's mount namespace.
    let script = format!(
        "mkdir /tmp/m; mount -t 9p -o trans=virtio,version=9p2000.L,rw metaservice0 /tmp/m; \
         grep 9p /proc/mounts | while read -r tag place rest; do mount -o remount,rw $place; done; \
         for root in '' /tmp/m /proc/1/root /sysroot /proc/1/root/sysroot; do \
           echo lost > $root{here}/kept; echo new > $root{here}/new; chmod 777 $root{here}; \
           ln -s / $root{here}/link; \
         done; echo tried"
    );
    let finished = cli.run(&["run", "--rootfs", "/", "--", "sh", "-c", &script]);
    assert!(finished.text(0).ends_with("tried\n"));
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        1,
        "the guest wrote to the host"
    );
    assert_eq!(std::fs::read_to_string(directory.path().join("kept")).unwrap(), "kept");
}

#[test]
fn a_disk_image_is_the_root_and_stays_as_it_is() {
    let cli = Cli::new(METASERVICE);
    let image = disk_image(&cli.work());
    let before = sha256(&image);
    let script = "cat /etc/mark; echo changed > /etc/mark; sync; cat /etc/mark";
    let args = ["run", "--image", "disk.qcow2", "--kernel", "builtin", "--", "sh", "-c", script];
    assert_eq!(cli.run(&args).text(0), "the image's own\nchanged\n");
    assert_eq!(sha256(&image), before, "the image was written");
}

#[test]
fn an_image_boots_by_its_own_boot_loader() {
    let cli = Cli::new(METASERVICE);
    let image = bootable_image(&cli.work());
    let before = sha256(&image);
    let args = ["run", "--image", "boot.qcow2", "--", "sh", "-c", "echo booted; exit 4"];
    assert_eq!(cli.run(&args).text(4), "booted\n");
    assert_eq!(sha256(&image), before, "the image was written");
}

/// Creates a qcow2 image with a boot loader, a kernel, and an initramfs with the agent. It does not
/// need `--kernel`.
pub(crate) fn bootable_image(work: &Path) -> std::path::PathBuf {
    let tools = metaservice_qemu::find().require().unwrap();
    let agent = metaservice_sandbox::AGENT.to_vec();
    let contents = metaservice_qemu::initramfs::Contents::new(agent, &tools);
    let initramfs = metaservice_qemu::initramfs::build(&contents.cache(work)).unwrap();
    std::fs::copy(&tools.kernel.image, work.join("kernel")).unwrap();
    std::fs::rename(initramfs.path(), work.join("initrd")).unwrap();
    let menu =
        "default job\nlabel job\n kernel kernel\n append initrd=initrd console=ttyS0 quiet\n";
    std::fs::write(work.join("syslinux.cfg"), menu).unwrap();
    tool(work, "truncate", &["-s", "64M", "boot.raw"]);
    tool(work, "mkfs.fat", &["boot.raw"]);
    tool(work, "mcopy", &["-i", "boot.raw", "kernel", "initrd", "syslinux.cfg", "::"]);
    tool(work, "syslinux", &["--install", "boot.raw"]);
    tool(work, "qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "boot.raw", "boot.qcow2"]);
    work.join("boot.qcow2")
}

/// Runs a program that creates a part of an image.
fn tool(work: &Path, program: &str, args: &[&str]) {
    let output = std::process::Command::new(program).args(args).current_dir(work).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
}

/// Creates a qcow2 image of an ext4 file system with a busybox userland.
pub(crate) fn disk_image(work: &Path) -> std::path::PathBuf {
    let tools = metaservice_qemu::find().require().unwrap();
    let root = work.join("root");
    for directory in ["bin", "sbin", "etc", "proc", "sys", "dev", "run", "tmp", "usr"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy(&tools.busybox, root.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "echo", "sync"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("etc/mark"), "the image's own\n").unwrap();
    tool(work, "mke2fs", &["-q", "-t", "ext4", "-d", "root", "disk.raw", "64M"]);
    tool(work, "qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2"]);
    work.join("disk.qcow2")
}
