//! Disk images: the one of a distribution, and one that contains only busybox.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the path of a cloud image, and that of a Python which runs its cloud-init. A script
/// makes both, and keeps them.
pub fn cloud_image() -> (String, PathBuf) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/cloud-image.sh");
    let output = Command::new("sh").arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    let (image, python) = told.trim().split_once(' ').unwrap();
    (image.to_owned(), python.into())
}

/// Makes a disk below `work` with a boot loader, a kernel and busybox. Its init fetches the agent
/// by one line. Returns the name of the file.
pub fn bare_image(work: &Path) -> String {
    let tools = metaservice_qemu::find().require().unwrap();
    let root = work.join("root");
    for directory in [
        "bin",
        "sbin",
        "etc",
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "usr/bin",
        "usr/sbin",
        "etc/acpi/PWRF",
        "var/run",
        "var/log",
    ] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy(&tools.busybox, root.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("bin/busybox", root.join("init")).unwrap();
    let table = "::sysinit:/bin/busybox sh /etc/rc\n\
                 ::once:/bin/sh -c 'wget -qO- http://169.254.169.254/engine/v1/agent/install | sh'\n";
    std::fs::write(root.join("etc/inittab"), table).unwrap();
    let mut rc = String::from(
        "/bin/busybox --install -s\nmount -t proc proc /proc\nmount -t sysfs sys /sys\n\
         mount -t devtmpfs dev /dev\n",
    );
    for module in modules(tools.kernel.modules.as_deref()) {
        let name = module.file_name().unwrap().to_str().unwrap();
        std::fs::copy(&module, root.join("etc").join(name)).unwrap();
        rc += &format!("insmod /etc/{name}\n");
    }
    rc += "ip link set lo up\nip addr add 169.254.1.2/16 dev eth0\nip link set eth0 up\n";
    std::fs::write(root.join("etc/rc"), rc).unwrap();
    std::fs::copy(&tools.kernel.image, work.join("kernel")).unwrap();
    let menu = "default it\nlabel it\n kernel kernel\n append initrd=initrd console=ttyS0 quiet\n";
    std::fs::write(work.join("syslinux.cfg"), menu).unwrap();
    let busybox = tools.busybox.display();
    let steps = format!(
        "set -e; PATH=$PATH:/usr/sbin; (cd root && find . | {busybox} cpio -o -H newc) > initrd; truncate -s 64M bare.raw; \
         mkfs.fat bare.raw; mcopy -i bare.raw kernel initrd syslinux.cfg ::; \
         syslinux --install bare.raw; qemu-img convert -f raw -O qcow2 bare.raw bare.qcow2"
    );
    let output = Command::new("sh").args(["-c", &steps]).current_dir(work).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    "bare.qcow2".to_owned()
}

/// Returns the modules for the disk, the network card and the power button, in loading order.
fn modules(directory: Option<&Path>) -> Vec<PathBuf> {
    let Some(directory) = directory else { return Vec::new() };
    let list = std::fs::read_to_string(directory.join("modules.dep")).unwrap();
    let mut order: Vec<PathBuf> = Vec::new();
    for wanted in ["virtio_pci.ko", "virtio_net.ko", "virtio_blk.ko", "button.ko", "evdev.ko"] {
        let lines = list.lines().filter_map(|line| line.split_once(':'));
        let line = lines.into_iter().find(|(path, _)| path.ends_with(&format!("/{wanted}")));
        let Some((path, needs)) = line else { continue };
        for module in needs.split_whitespace().rev().chain([path]) {
            let module = directory.join(module);
            if !order.contains(&module) {
                order.push(module);
            }
        }
    }
    order
}
