//! How long a machine takes from nothing to nothing, and what of that is the kernel's own.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, ensure};
use metaservice_vm::{Boot, Machine, MachineSpec, Tools, initramfs};
use tokio::runtime::Runtime;

use super::bound::{self, within};
use super::lab::text;
use super::scratch::{Scratch, cache};
use crate::measure::{Better, Goal, Measure, Role, Setting, Values};

fn measure(title: &'static str, how: String) -> Measure {
    Measure::new(title, how).quantity("time", "s", Better::Less)
}

/// A command from the start of the tool to its exit.
pub(super) fn run(setting: &Setting) -> anyhow::Result<Measure> {
    let tool = Rc::new(Tool::new(setting)?);
    let floor = Floor::new()?;
    // What is unpacked and packed once only is no part of it.
    tool.run(&["--no-warm"], BOOTING)?;
    tool.save()?;
    let warm = Rc::clone(&tool);
    let how = "`metaservice run -- true` with the built-in guest, from the start of the process to its exit: *cold* boots a machine \
        (`--no-warm`), *warm* goes on from one that `metaservice image snapshot builtin` has saved. The floor is the same QEMU, with the \
        same devices, and the same kernel on the same command line, with an initramfs that holds nothing but an init of one system call: \
        power off.";
    Ok(measure("A run from nothing to nothing", how.to_owned())
        .subject("cold", Role::Ours, move || tool.run(&["--no-warm"], BOOTING))
        .subject("warm", Role::Ours, move || warm.run(&[], CONTINUING))
        .subject("floor", Role::Limit, move || floor.sample())
        .goal(Goal::ratio("cold", "time", 1.3, "floor"))
        .goal(Goal::ratio("warm", "time", 0.35, "cold")))
}

/// What the tool says of how its machine starts.
const BOOTING: &str = "\"event\":\"booting\"";
const CONTINUING: &str = "\"event\":\"continuing\"";

/// The tool with a cache of its own, in which the user's QEMU, kernel and busybox are and no saved
/// machine is.
struct Tool {
    path: PathBuf,
    scratch: Scratch,
}

impl Tool {
    fn new(setting: &Setting) -> anyhow::Result<Self> {
        let (path, scratch) = (setting.tool()?.to_owned(), Scratch::new()?);
        let own = scratch.path().join("metaservice");
        std::fs::create_dir(&own)?;
        for name in ["bin", "kernel", "qemu", "vmlinux"] {
            let theirs = cache()?.join(name);
            if theirs.exists() {
                symlink(theirs, own.join(name))?;
            }
        }
        Ok(Self { path, scratch })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.env("XDG_CACHE_HOME", self.scratch.path()).env_remove("METASERVICE_NO_WARM");
        command
    }

    /// Saves a machine to go on from.
    fn save(&self) -> anyhow::Result<()> {
        let mut command = self.command();
        command.args(["image", "snapshot", "builtin"]);
        bound::run(command).map(drop)
    }

    /// The time of a run, which is to say `event`.
    fn run(&self, options: &[&str], event: &str) -> anyhow::Result<Values> {
        let begun = Instant::now();
        let mut command = self.command();
        command.args(["run", "--json"]).args(options).args(["--", "true"]);
        let said = bound::run(command)?;
        let time = begun.elapsed().as_secs_f64();
        ensure!(said.contains(event), "it has not said {event}: {said}");
        Ok(vec![("time", time)])
    }
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
            let exit =
                within(bound::SAMPLE, "the floor", async { Ok(machine.wait().await) }).await?;
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
    let tool = Rc::new(Tool::new(setting)?);
    let tools = metaservice_vm::find().require()?;
    let agent = std::fs::read(setting.agent()?)?;
    let place = Scratch::new()?;
    let initramfs = initramfs::Contents::new(agent, &tools).cache(place.path());
    let plain = initramfs::build(&initramfs)?;
    let packed = place.path().join("packed.cpio.gz");
    pack(&plain, &packed)?;
    let q35 = place.path().join("q35");
    write_q35(&tools, &q35)?;
    let (elf, image) = (unpacked(&tools)?, tools.kernel.image.clone());
    let how = "`metaservice run --kernel FILE --initrd FILE -- true`, which ends with the machine's own power-off: with the kernel as an ELF \
        file and as the image that unpacks itself, with the initramfs as it is and compressed by gzip, and on QEMU's machine type q35 \
        instead of pc.";
    let way = |kernel: &Path, initrd: &Path, qemu: Option<&Path>| {
        let (tool, qemu) = (Rc::clone(&tool), qemu.map(Path::to_owned));
        let options = ["--kernel", text(kernel)?, "--initrd", text(initrd)?];
        let options = options.map(str::to_owned);
        anyhow::Ok(move || {
            let mut command = tool.command();
            if let Some(qemu) = &qemu {
                command.env("METASERVICE_QEMU", qemu);
            }
            command.arg("run").args(&options).args(["--", "true"]);
            let begun = Instant::now();
            bound::run(command)?;
            Ok(vec![("time", begun.elapsed().as_secs_f64())])
        })
    };
    let other_type = way(&elf, &plain, Some(&q35))?;
    Ok(measure("Ways to boot", how.to_owned())
        .subject("plain kernel and initramfs", Role::Ours, way(&elf, &plain, None)?)
        .subject("compressed initramfs", Role::Limit, way(&elf, &packed, None)?)
        .subject("kernel image", Role::Limit, way(&image, &plain, None)?)
        .subject("machine type q35", Role::Limit, move || {
            let _keep = &place;
            other_type()
        }))
}

fn pack(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut gzip = Command::new("gzip");
    gzip.arg("-k").arg("--stdout").arg(from).stdout(std::fs::File::create(to)?);
    let status = gzip.status()?;
    ensure!(status.success(), "gzip has failed");
    Ok(())
}

/// A script that is QEMU with another machine type.
fn write_q35(tools: &Tools, path: &Path) -> anyhow::Result<()> {
    let mut script = std::fs::File::create(path)?;
    write!(
        script,
        "#!/bin/sh\nfor word; do shift\ncase $word in pc,*) word=q35,${{word#pc,}} ;; esac\n\
         set -- \"$@\" \"$word\"; done\nexec {} \"$@\"\n",
        tools.qemu.path.display()
    )?;
    script.set_permissions(std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The plain kernel.
fn unpacked(tools: &Tools) -> anyhow::Result<PathBuf> {
    match Boot::from_kernel(&tools.kernel) {
        Boot::Direct { kernel, .. } => Ok(kernel),
        Boot::Firmware => None.context("a kernel is booted without firmware"),
    }
}
