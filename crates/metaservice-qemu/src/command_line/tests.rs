use super::*;
use crate::arch::Arch;
use crate::find::qemu::{Qemu, QemuVersion};
use crate::spec::disk::{Disk, DiskFormat};
use crate::spec::hardware::{Cpus, Memory, SystemUuid};
use crate::spec::network::Card;

const INHERITED: Inherited<'_> =
    Inherited { monitor: 11, console: 12, card: Some(13), scratch: None, exports: &[] };

fn spec(boot: Boot) -> MachineSpec {
    let version = QemuVersion { major: 7, minor: 2 };
    MachineSpec::new(&Qemu::new("/bin/qemu", version), boot)
}

fn raw(path: &Path) -> Disk {
    Disk::new(path.canonicalize().unwrap(), DiskFormat::Raw)
}

fn direct() -> Boot {
    Boot::Direct { kernel: "/proc/self/exe".into(), initramfs: None, arguments: Vec::new() }
}

fn build(spec: &MachineSpec) -> Result<Vec<String>, InvalidSpec> {
    let choice = AcceleratorChoice { kvm: false, reason: String::new() };
    let words = qemu(spec, &choice, INHERITED)?;
    Ok(words.into_iter().map(|word| word.into_string().unwrap()).collect())
}

/// The values of an option, in order.
fn values(words: &[String], option: &str) -> Vec<String> {
    words.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].clone()).collect()
}

#[test]
fn a_small_machine_in_full() {
    let image = Path::new("/proc/self/exe").canonicalize().unwrap();
    for (arch, machine, cpu, console) in [
        (Arch::X86_64, "pc,usb=off,vmport=off", "max,-erms,-fsrm", "ttyS0 no_timer_check"),
        (Arch::Aarch64, "virt", "max", "ttyAMA0"),
    ] {
        let mut spec = spec(direct());
        spec.qemu.arch = arch;
        let words = build(&spec).unwrap();
        let expected = format!(
            "-nodefaults -no-user-config -no-reboot -display none -machine {machine} \
         -accel tcg -cpu {cpu} -smp 1 -m 1024M \
         -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
         -chardev socket,id=monitor,fd=11 -mon chardev=monitor,mode=control \
         -chardev socket,id=console,fd=12 -serial chardev:console \
         -device virtio-rng-pci -device pvpanic-pci -kernel {} -append \
         console={console} {KERNEL_ARGUMENTS}",
            image.display()
        );
        assert_eq!(words.join(" "), expected);
    }
}

#[test]
fn the_card_is_the_only_one() {
    let (_, stream) = std::os::unix::net::UnixStream::pair().unwrap();
    let card = Card::new(stream.into(), "52:54:00:12:34:56".parse().unwrap()).mtu(1500);
    let words = build(&spec(direct()).card(card)).unwrap();
    let socket = "stream,id=service,server=off,addr.type=fd,addr.str=13";
    assert_eq!(values(&words, "-netdev"), [socket]);
    let device = "virtio-net-pci,netdev=service,mac=52:54:00:12:34:56,host_mtu=1500,romfile=";
    assert_eq!(values(&words, "-device")[2..], [device]);
}

#[test]
fn the_firmware_tables_name_the_machine() {
    let words =
        build(&spec(direct()).uuid(SystemUuid::from(*b"\xec\x20456789abcdef\0\0"))).unwrap();
    let uuid = "ec203435-3637-3839-6162-636465660000";
    assert_eq!(values(&words, "-smbios"), [format!("type=1,uuid={uuid},serial={uuid}")]);
}

#[test]
fn commas_in_paths_are_doubled() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("a,b,,c");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("disk,0"), [0; 512]).unwrap();
    let words = build(&spec(direct()).disk(raw(&root.join("disk,0")))).unwrap();
    let above = directory.path().canonicalize().unwrap().display().to_string();
    let drive = &values(&words, "-drive")[0];
    assert_eq!(
        *drive,
        format!("if=none,id=disk,snapshot=on,format=raw,file={above}/a,,b,,,,c/disk,,0")
    );
}

#[test]
fn a_machine_has_a_device_for_each_directory_and_as_many_as_it_is_to_have() {
    let export = |path: &str, refuses_others| Export { path: path.into(), refuses_others };
    let exports = [export("/export/0", false), export("/a,b", true), export("/export/2", false)];
    let choice = AcceleratorChoice { kvm: false, reason: String::new() };
    let shared = spec(direct()).share(Share::new("/x")).share(Share::new("/y").writable());
    let inherited = Inherited { exports: &exports, ..INHERITED };
    let words = qemu(&shared.share_devices(3), &choice, inherited).unwrap();
    let words: Vec<_> = words.into_iter().map(|word| word.into_string().unwrap()).collect();
    let fsdev =
        |number: usize, how: &str| format!("local,id=share{number},security_model=none,{how}");
    assert_eq!(
        values(&words, "-fsdev"),
        [
            fsdev(0, "readonly=on,multidevs=remap,path=/export/0"),
            fsdev(1, "readonly=off,multidevs=forbid,path=/a,,b"),
            fsdev(2, "readonly=on,multidevs=remap,path=/export/2"),
        ]
    );
    let devices = values(&words, "-device");
    assert_eq!(devices[devices.len() - 1], "virtio-9p-pci,fsdev=share2,mount_tag=metaservice2");
    // The key of a snapshot has the devices, whatever their directories.
    let idle = build(&spec(direct()).share_devices(3)).unwrap();
    assert_eq!(values(&idle, "-fsdev")[2], fsdev(2, "readonly=on,multidevs=remap,path="));
    assert!(values(&build(&spec(direct())).unwrap(), "-fsdev").is_empty());
}

#[test]
fn firmware_boots_a_disk() {
    let disk = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(build(&spec(Boot::Firmware)), Err(InvalidSpec::NothingToBoot)));
    let words = build(&spec(Boot::Firmware).disk(raw(disk.path()))).unwrap();
    assert!(values(&words, "-kernel").is_empty() && values(&words, "-append").is_empty());
}

#[test]
fn the_init_is_told_everything() {
    let disk = tempfile::NamedTempFile::new().unwrap();
    let spec = spec(direct().argument("loglevel=7"))
        .disk(raw(disk.path()))
        .root(Root::Disk)
        .guest_address([10, 0, 2, 15].into(), 24)
        .guest_gateway([10, 0, 2, 2].into())
        .hostname("ci-7.example");
    let words = build(&spec).unwrap();
    assert!(values(&words, "-append")[0].ends_with(
        " metaservice.root=disk metaservice.address=10.0.2.15/24 metaservice.gateway=10.0.2.2 \
          metaservice.resolver=10.0.2.2 metaservice.hostname=ci-7.example loglevel=7"
    ));
}

#[test]
fn what_would_break_the_command_line_is_refused() {
    assert!(matches!(build(&spec(direct()).root(Root::Disk)), Err(InvalidSpec::NoRoot("a disk"))));
    for argument in ["", "a b", "a\nb", "a\0b", "a\u{a0}b"] {
        let result = build(&spec(direct().argument(argument)));
        assert!(matches!(result, Err(InvalidSpec::KernelArgument(_))), "{argument:?}");
    }
    for name in ["", "-a", "a-", "a..b", "a b", "a=b", &"a".repeat(65), "ä"] {
        assert!(
            matches!(build(&spec(direct()).hostname(name)), Err(InvalidSpec::HostName(_))),
            "{name:?}"
        );
    }
    let long = spec(direct().argument("x".repeat(MAX_COMMAND_LINE)));
    assert!(matches!(build(&long), Err(InvalidSpec::CommandLineTooLong(_))));
}

#[test]
fn the_size_and_the_accelerator() {
    let spec = spec(direct()).cpus(Cpus::new(4).unwrap()).memory(Memory::parse("2G").unwrap());
    let choice = AcceleratorChoice { kvm: true, reason: String::new() };
    let words = qemu(&spec, &choice, INHERITED).unwrap();
    let words: Vec<_> = words.into_iter().map(|word| word.into_string().unwrap()).collect();
    assert_eq!(values(&words, "-accel"), ["kvm"]);
    assert_eq!(values(&words, "-cpu"), ["host"]);
    assert_eq!(values(&words, "-smp"), ["4"]);
    assert_eq!(values(&words, "-m"), ["2048M"]);
}

#[test]
fn what_a_machine_writes_to_its_disk_stays_only_where_it_is_to() {
    let disk = tempfile::NamedTempFile::new().unwrap();
    let path = disk.path().canonicalize().unwrap().display().to_string();
    let spec = || spec(direct()).disk(raw(disk.path()));
    let drive = |spec: &MachineSpec| values(&build(spec).unwrap(), "-drive").remove(0);
    let thrown_away = format!("if=none,id=disk,snapshot=on,format=raw,file={path}");
    assert_eq!(drive(&spec()), thrown_away);
    let kept = MachineSpec { keeps_disk: true, ..spec() };
    let stays = "if=none,id=disk,discard=unmap,detect-zeroes=unmap";
    assert_eq!(drive(&kept), format!("{stays},format=raw,file={path}"));
    let files =
        || SnapshotFiles { memory: "/m".into(), disk: Some("/o,v".into()), empty: "/e".into() };
    let created = MachineSpec { snapshot: Some(SnapshotUse::Create(files())), ..spec() };
    assert_eq!(drive(&created), format!("{stays},format=qcow2,file=/o,,v"));
    let restored =
        MachineSpec { snapshot: Some(SnapshotUse::Restore(files(), Vec::new())), ..spec() };
    assert_eq!(drive(&restored), "if=none,id=disk,snapshot=on,format=qcow2,file=/o,,v");
    let objects = |spec: &MachineSpec| values(&build(spec).unwrap(), "-object").remove(0);
    assert!(objects(&created).ends_with(",share=on,mem-path=/m"));
    assert!(objects(&restored).ends_with(",share=off,mem-path=/m"));
}
