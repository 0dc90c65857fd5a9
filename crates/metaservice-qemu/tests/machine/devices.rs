//! What a guest sees of the host's directories, disks and network, and what it cannot do to them.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use crate::guest::{TIMEOUT, hear, is_empty, start, with_modules, with_script};
use metaservice_qemu::{Card, Disk, DiskFormat, ExitCause, MacAddress, ModuleNeed, Share, find};
use tokio::io::AsyncReadExt;

async fn powers_off(machine: &metaservice_qemu::Machine) {
    let exit = tokio::time::timeout(TIMEOUT, machine.wait()).await.unwrap();
    assert_eq!(exit.cause, ExitCause::GuestPoweredOff, "{:#?}", machine.console().tail(40));
}

#[tokio::test]
async fn a_shared_directory_is_read_and_never_written() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("with, a comma");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "from the host\n").unwrap();
    let script = "
mkdir /lower /layer
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro metaservice0 /lower
cat /lower/file
mount -o remount,rw /lower; echo 'forged' > /lower/file || echo 'lower is read-only'
mount -t tmpfs layer /layer
mkdir /layer/upper /layer/work
mount -t overlay overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work /sysroot
echo 'from the guest' > /sysroot/file; cat /sysroot/file; rm /sysroot/file; echo new > /sysroot/new
poweroff -f
";
    let spec = with_modules(script, &[ModuleNeed::SharedDirectory]).share(Share::new(&root));
    let machine = start(spec).await;
    powers_off(&machine).await;
    let said = machine.console().tail(40);
    for line in ["from the host", "lower is read-only", "from the guest"] {
        assert!(said.iter().any(|said| said == line), "{line}: {said:#?}");
    }
    assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "from the host\n");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
}

/// A disk of 8 MiB with a pattern in it.
fn pattern() -> Vec<u8> {
    (0..8u32 << 20).map(|at| at.to_le_bytes()[usize::try_from(at % 3).unwrap()]).collect()
}

/// Whether a process has a file open for writing.
fn opened_for_writing(process_id: u32, path: &Path) -> bool {
    let of_process = Path::new("/proc").join(process_id.to_string());
    let mut seen = 0;
    let writing = fs::read_dir(of_process.join("fd")).unwrap().flatten().any(|entry| {
        if fs::read_link(entry.path()).ok().as_deref() != Some(path) {
            return false;
        }
        seen += 1;
        let info = fs::read_to_string(of_process.join("fdinfo").join(entry.file_name())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        u32::from_str_radix(flags.trim(), 8).unwrap() & 3 != 0
    });
    assert!(writing || seen > 0, "the image is not open at all");
    writing
}

async fn a_guest_writes_to(disk: Disk, scratch: &Path) {
    let image = disk.path().to_owned();
    let script = "
echo written > /tmp/block; dd if=/tmp/block of=/dev/vda bs=512 conv=sync,notrunc 2>/dev/null
dd if=/dev/zero of=/dev/vda bs=1M seek=1 count=7 2>/dev/null; sync
echo 3 > /proc/sys/vm/drop_caches
head -c 8 /dev/vda
echo check; while read line; do poweroff -f; done
";
    let machine =
        start(with_modules(script, &[ModuleNeed::Disk]).disk(disk).scratch(scratch)).await;
    hear(&machine, "written").await;
    hear(&machine, "check").await;
    assert!(is_empty(scratch), "the scratch file has no name while the machine runs");
    assert!(!opened_for_writing(machine.process_id(), &image), "QEMU itself could write the image");
    assert_eq!(machine.kill().await.cause, ExitCause::Killed);
    assert!(is_empty(scratch));
}

#[tokio::test]
async fn a_raw_image_is_never_written() {
    let directory = tempfile::tempdir().unwrap();
    let (image, scratch) = (directory.path().join("disk,raw"), directory.path().join("scratch"));
    fs::create_dir(&scratch).unwrap();
    fs::write(&image, pattern()).unwrap();
    let disk = Disk::new(&image, DiskFormat::Raw).size(8 << 20);
    a_guest_writes_to(disk, &scratch).await;
    assert!(fs::read(&image).unwrap() == pattern(), "the image has changed");
}

#[tokio::test]
async fn a_qcow2_image_is_never_written() {
    let report = find();
    let Some(qemu_img) = report.qemu_img.found() else { panic!("{report}") };
    let directory = tempfile::tempdir().unwrap();
    let (raw, image, scratch) = (
        directory.path().join("raw"),
        directory.path().join("disk.qcow2"),
        directory.path().join("scratch"),
    );
    fs::create_dir(&scratch).unwrap();
    fs::write(&raw, pattern()).unwrap();
    let convert = |arguments: &[&str]| {
        let status = Command::new(qemu_img).args(arguments).arg(&raw).arg(&image).status().unwrap();
        assert!(status.success());
    };
    convert(&["convert", "-f", "raw", "-O", "qcow2"]);
    let before = fs::read(&image).unwrap();
    let disk = Disk::new(&image, DiskFormat::Qcow2).size(8 << 20);
    a_guest_writes_to(disk, &scratch).await;
    assert!(fs::read(&image).unwrap() == before, "the image has changed");
}

#[tokio::test]
async fn frames_come_out_of_the_card() {
    let (host, guest) = UnixStream::pair().unwrap();
    let address = MacAddress::random();
    let script = "
ip link set eth0 up
echo mtu $(cat /sys/class/net/eth0/mtu) address $(cat /sys/class/net/eth0/address)
udhcpc -i eth0 -n -t 3 -q 2>&1
poweroff -f
";
    let spec = with_script(script).card(Card::new(guest.into(), address));
    let machine = start(spec).await;
    host.set_nonblocking(true).unwrap();
    let mut host = tokio::net::UnixStream::from_std(host).unwrap();
    let dhcp = async {
        loop {
            let mut frame = vec![0; usize::try_from(host.read_u32().await.unwrap()).unwrap()];
            host.read_exact(&mut frame).await.unwrap();
            // IPv4, UDP, to the port of a DHCP server.
            if frame.len() > 38
                && frame[12..14] == [8, 0]
                && frame[23] == 17
                && frame[36..38] == [0, 67]
            {
                return frame;
            }
        }
    };
    hear(&machine, &format!("mtu 65520 address {address}")).await;
    let frame = tokio::time::timeout(TIMEOUT, dhcp).await;
    let frame =
        frame.unwrap_or_else(|_| panic!("no frame came; {:#?}", machine.console().tail(40)));
    assert_eq!(frame[..6], [0xff; 6]);
    assert_eq!(frame[6..12], address.bytes());
}
