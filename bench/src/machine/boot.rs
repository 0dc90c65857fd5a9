//! How long a machine takes from nothing to nothing, and what of that is the kernel's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, ensure};
use metaservice_vm::{Boot, Machine, MachineSpec, Tools, initramfs};
use tokio::runtime::Runtime;

use crate::measure::{Better, Goal, Measure, Role, Setting, Values};

fn measure(title: &'static str, how: String) -> Measure {
    Measure::new(title, how).quantity("time", "s", Better::Less)
}

/// A command from the start of the tool to its exit.
pub(super) fn run(setting: &Setting) -> anyhow::Result<Measure> {
    let tool = setting.tool()?.to_owned();
    let floor = Floor::new()?;
    // What is unpacked and packed once only is no part of it.
    cold_run(&tool, &[])?;
    let how = "`metaservice run -- true` with the built-in guest, from the start of the process to its exit. The floor is the same \
        QEMU, with the same devices, and the same kernel on the same command line, with an initramfs that holds nothing but an init of \
        one system call: power off.";
    Ok(measure("A cold run", how.to_owned())
        .subject("run -- true", Role::Ours, move || cold_run(&tool, &[]))
        .subject("floor", Role::Limit, move || floor.sample())
        .goal(Goal::ratio("run -- true", "time", 1.3, "floor")))
}

fn cold_run(tool: &Path, options: &[&Path]) -> anyhow::Result<Values> {
    let begun = Instant::now();
    let mut command = Command::new(tool);
    command.arg("run").args(options).args(["--", "true"]).stdin(Stdio::null());
    let output = command.output()?;
    let time = begun.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", tool.display(), said.trim());
    Ok(vec![("time", time)])
}

/// A machine that is turned off by the first thing that runs in it.
struct Floor {
    runtime: Runtime,
    tools: Tools,
    initramfs: PathBuf,
    _folder: tempfile::TempDir,
}

impl Floor {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let initramfs = folder.path().join("floor.cpio");
        std::fs::write(&initramfs, archive(&turn_off()))?;
        let tools = metaservice_vm::find().require()?;
        Ok(Self { runtime: Runtime::new()?, tools, initramfs, _folder: folder })
    }

    fn sample(&self) -> anyhow::Result<Values> {
        self.runtime.block_on(async {
            let begun = Instant::now();
            let (_ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            let boot = Boot::from_kernel(&self.tools.kernel).initramfs(&self.initramfs);
            let card =
                metaservice_vm::Card::new(theirs.into(), metaservice_vm::MacAddress::random());
            let machine =
                Machine::start(MachineSpec::new(&self.tools.qemu, boot).card(card)).await?;
            let exit = machine.wait().await;
            let time = begun.elapsed().as_secs_f64();
            ensure!(exit.how == metaservice_vm::How::GuestPoweredOff, "{}", exit.how);
            Ok(vec![("time", time)])
        })
    }
}

/// A program of one system call, `reboot` with the word for turning off, for x86-64.
fn turn_off() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u16 = 64 + 56;
    #[rustfmt::skip]
    const CODE: [u8; 24] = [
        0xb8, 169, 0, 0, 0,                // mov eax, SYS_reboot
        0xbf, 0xad, 0xde, 0xe1, 0xfe,      // mov edi, LINUX_REBOOT_MAGIC1
        0xbe, 0x69, 0x19, 0x12, 0x28,      // mov esi, LINUX_REBOOT_MAGIC2
        0xba, 0xdc, 0xfe, 0x21, 0x43,      // mov edx, LINUX_REBOOT_CMD_POWER_OFF
        0x0f, 0x05,                        // syscall
        0xeb, 0xfe,                        // stay
    ];
    let entry = BASE + u64::from(HEADERS);
    let length = u64::from(HEADERS) + CODE.len() as u64;
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(16, 0);
    for half in [2u16, 62] {
        program.extend(half.to_le_bytes());
    }
    program.extend(1u32.to_le_bytes());
    for word in [entry, 64, 0] {
        program.extend(word.to_le_bytes());
    }
    program.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        program.extend(half.to_le_bytes());
    }
    // One segment, to be read and run.
    for half in [1u32, 5] {
        program.extend(half.to_le_bytes());
    }
    for word in [0, BASE, BASE, length, length, 4096] {
        program.extend(word.to_le_bytes());
    }
    program.extend(CODE);
    program
}

/// An initramfs (cpio, "newc") of `/init` alone.
fn archive(init: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, mode, content) in [("init", 0o100_755, init), ("TRAILER!!!", 0, &[][..])] {
        archive.extend(b"070701");
        let fields = [1, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        archive.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        archive.extend(name.bytes().chain([0]));
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

/// Ways to boot, up to the same agent and its command's end.
pub(super) fn ways(setting: &Setting) -> anyhow::Result<Measure> {
    let tool: Rc<Path> = setting.tool()?.into();
    let tools = metaservice_vm::find().require()?;
    let agent = std::fs::read(setting.agent()?)?;
    let plain = initramfs::build(&initramfs::Contents::new(agent, &tools))?;
    let folder = tempfile::tempdir()?;
    let packed = folder.path().join("packed.cpio.gz");
    pack(&plain, &packed)?;
    let (elf, image) = (unpacked(&tools)?, tools.kernel.image.clone());
    let how = "`metaservice run --kernel FILE --initrd FILE -- true`, which ends with the machine's own power-off, with the kernel as an ELF file and \
        as the image that unpacks itself, and with the initramfs as it is and compressed by gzip.";
    let way = |kernel: PathBuf, initrd: PathBuf| {
        let tool = Rc::clone(&tool);
        move || {
            let options = [Path::new("--kernel"), &kernel, Path::new("--initrd"), &initrd];
            cold_run(&tool, &options)
        }
    };
    let compressed = way(elf.clone(), packed);
    Ok(measure("Ways to boot", how.to_owned())
        .subject("plain kernel and initramfs", Role::Ours, way(elf, plain.clone()))
        .subject("compressed initramfs", Role::Limit, move || {
            let _keep = &folder;
            compressed()
        })
        .subject("kernel image", Role::Limit, way(image, plain)))
}

fn pack(from: &Path, to: &Path) -> anyhow::Result<()> {
    let (input, output) = (std::fs::File::open(from)?, std::fs::File::create(to)?);
    let status = Command::new("gzip").arg("-c").stdin(input).stdout(output).status()?;
    ensure!(status.success(), "gzip has failed");
    Ok(())
}

/// The plain kernel.
fn unpacked(tools: &Tools) -> anyhow::Result<PathBuf> {
    match Boot::from_kernel(&tools.kernel) {
        Boot::Direct { kernel, .. } => Ok(kernel),
        Boot::Firmware => None.context("a kernel is booted without firmware"),
    }
}
